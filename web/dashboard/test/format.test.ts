import { describe, expect, it } from "vitest";
import * as format from "../src/core/format.ts";

describe("numbers", () => {
  it.each([
    [21.5, "21.5"],
    [0, "0"],
    [-0, "0"],
    [1234567.891, "1234567.9"],
    [0.1 + 0.2, "0.3"],
    [1e-9, "1.00e-9"],
    [Number.NaN, "–"],
  ])("writes %s as %s", (value, text) => expect(format.formatNumber(value)).toBe(text));

  it("keeps the width of a reading", () => {
    expect(format.formatReading(21, 2)).toBe("21.00");
    expect(format.formatReading(-0.001, 1)).toBe("0.0");
    expect(format.decimalsOf(21.53)).toBe(2);
    expect(format.decimalsOf(21)).toBe(0);
  });

  it.each([
    [0, "0/s"],
    [0.1, "6/min"],
    [0.0005, "2/h"],
    [0.00001, "< 1/h"],
    [1, "1/s"],
    [2.54, "2.5/s"],
    [420.4, "420/s"],
    [5000, "5.0k/s"],
  ])("says %s per second as %s", (rate, text) => expect(format.formatRate(rate)).toBe(text));

  it("groups counts", () => expect(format.formatCount(1234567)).toBe("1,234,567"));
});

describe("times", () => {
  it.each([
    [-500, "now"],
    [1200, "now"],
    [12_900, "12 s"],
    [61_000, "1 min"],
    [3 * 3_600_000, "3 h"],
    [72 * 3_600_000, "3 d"],
  ])("says an age of %s ms as %s", (age, text) => expect(format.formatAge(age)).toBe(text));

  it("says ages in a column so that what is older is longer", () => {
    const ages = [-5000, 5000, 120_000, 599_000, 3_599_000, 11_051_000, 86_399_000, 183_840_000, 900_000_000];
    const texts = ages.map(format.formatElapsed);
    expect(texts).toEqual(["0:00", "0:05", "2:00", "9:59", "59:59", "3:04:11", "23:59:59", "2 d 03:04", "10 d 10:00"]);
    expect([...texts].sort((a, b) => a.length - b.length)).toEqual(texts);
  });

  it.each([
    [0.42, "0.4 ms"],
    [12.3, "12 ms"],
    [1500, "1.5 s"],
    [10_000, "10 s"],
    [300_000, "5 min"],
    [Number.NaN, "–"],
  ])("says a span of %s ms as %s", (span, text) => expect(format.formatSpan(span)).toBe(text));

  it("reads the spans that an address may hold", () => {
    expect(format.parseSpan("90s")).toBe(90_000);
    expect(format.parseSpan("1.5h")).toBe(5_400_000);
    expect(format.parseSpan("last")).toBeNull();
    expect(format.parseSpan("k3f9:18273")).toBeNull();
  });
});

describe("words and names", () => {
  it("counts one and many", () => {
    expect(format.counted(1, "message")).toBe("1 message");
    expect(format.counted(0, "message")).toBe("0 messages");
    expect(format.counted(1234, "reply", "replies")).toBe("1,234 replies");
  });

  it.each([
    [0, "0"],
    [100, "6,000"],
    [0.2, "12"],
    [0.025, "1.5"],
    [1 / 60, "1"],
    [1 / 3600, "0.02"],
    [1e-6, "< 0.01"],
  ])("has one unit in a column of rates: %s", (rate, text) => expect(format.formatPerMinute(rate)).toBe(text));
});

import { describe, expect, it } from "vitest";
import { eachNumber, fieldLabel, numberInText, oneLine, sortFields, summary } from "../src/core/values.ts";

function numbers(payload: unknown): Record<string, number> {
  const found: Record<string, number> = {};
  eachNumber(payload, (field, value) => {
    found[field] = value;
  });
  return found;
}

describe("numbers in payloads", () => {
  it("writes a dot in a name so that it is no step down", () => {
    expect(numbers({ SDS0X1: { "PM2.5": 4 } })).toEqual({ "SDS0X1.PM2\\.5": 4 });
    expect(numbers({ "a.b": 1, a: { b: 2 }, "c\\": { d: 3 }, "c\\.d": 4 })).toEqual({
      "a\\.b": 1,
      "a.b": 2,
      "c\\\\.d": 3,
      "c\\\\\\.d": 4,
    });
    expect(fieldLabel("SDS0X1.PM2\\.5")).toBe("SDS0X1.PM2.5");
  });
  it("finds a plain number", () => expect(numbers(21.5)).toEqual({ "": 21.5 }));
  it("finds a number in text, with or without a unit", () => {
    expect(numbers("21.5")).toEqual({ "": 21.5 });
    expect(numbers(" 21.5 °C ")).toEqual({ "": 21.5 });
    expect(numbers("-3e2")).toEqual({ "": -300 });
  });
  it.each(["12:30", "2026-05-04", "1.2.3.4", "hello", "", "5 out of 6"])("sees no number in %j", (text) =>
    expect(numberInText(text)).toBeNull(),
  );
  it("takes on and off as 1 and 0", () => {
    expect(numbers("ON")).toEqual({ "": 1 });
    expect(numbers({ on: true })).toEqual({ on: 1 });
  });
  it("finds nested fields and short arrays", () => {
    expect(numbers({ a: { b: [1, { c: "2" }] }, id: "4f", n: null })).toEqual({ "a.b.0": 1, "a.b.1.c": 2 });
  });
  it("survives any shape", () => {
    expect(numbers(null)).toEqual({});
    expect(Object.keys(numbers(Array.from({ length: 5000 }, (_, index) => index)))).toHaveLength(16);
    let deep: unknown = 1;
    for (let level = 0; level < 500; level++) deep = { deep };
    expect(numbers(deep)).toEqual({});
    const wide = Object.fromEntries(Array.from({ length: 5000 }, (_, index) => [`k${index}`, index]));
    expect(Object.keys(numbers(wide))).toHaveLength(64);
  });
});

describe("fields", () => {
  it("offers what people look for first and bookkeeping last", () => {
    expect(sortFields(["seq", "battery", "zeta", "humidity", "ts", "temperature"])).toEqual([
      "temperature",
      "humidity",
      "zeta",
      "battery",
      "seq",
      "ts",
    ]);
  });
  it("names them", () => {
    expect(fieldLabel("signal_strength")).toBe("Signal strength");
    expect(fieldLabel("")).toBe("value");
    expect(fieldLabel("co2")).toBe("CO₂");
  });
});

describe("one line", () => {
  it("cuts long payloads and folds white space", () => {
    expect(oneLine("a\n  b")).toBe("a b");
    expect(oneLine([1, "a"])).toBe('[1,"a"]');
    expect(oneLine(null)).toBe("null");
    expect(oneLine("x".repeat(500), 10)).toBe("xxxxxxxxx…");
  });
  it("says in words what has no line", () => {
    expect(summary("", undefined, 9)).toBe("(empty)");
    expect(summary("AA==", "base64", 9)).toBe("(binary)");
    expect(summary(false, undefined, 9)).toBe("false");
  });
  it("says readings before bookkeeping", () => {
    expect(oneLine({ ts: 1.5, seq: 2, temperature: 21.5, door: "open" })).toBe(
      "temperature 21.5, door open, ts 1.5, seq 2",
    );
  });
});

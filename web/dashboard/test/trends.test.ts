import { describe, expect, it } from "vitest";
import type { Columns } from "../src/core/columns.ts";
import {
  DAY,
  finerWindow,
  oneQuestion,
  pointsFor,
  Trend,
  timesOf,
  trendWindow,
  windowWords,
} from "../src/core/trends.ts";

const MINUTE = 60_000;

function columns(counts: number[], step = 1000, start = 0): Columns {
  const mean = counts.map((count, index) => (count ? index : null));
  return { start, step, level: "raw", min: mean, max: mean, last: mean, mean, count: counts };
}

const values = ({ series }: Trend) => Array.from({ length: series.length }, (_, index) => series.value(index));

describe("the window of the sparklines", () => {
  const since = (ago: number) => {
    const trend = new Trend("t", "");
    trend.note(1e9 - ago, 1);
    return trend;
  };
  it.each([
    [20_000, MINUTE],
    [14 * MINUTE, 15 * MINUTE],
    [59 * MINUTE, 60 * MINUTE],
    [23 * 60 * MINUTE, DAY],
    [9 * DAY, DAY],
  ])("with %s ms of history is %s ms", (ago, window) => {
    expect(trendWindow([null, since(1000), since(ago)], 1e9)).toBe(window);
  });
  it("is asked for again where history is much younger", () => {
    const now = 100 * DAY;
    const young = columns([0, 0, 1], 5 * MINUTE, now - 15 * MINUTE);
    expect(finerWindow([columns([0]), young], DAY, now)).toBe(5 * MINUTE);
    expect(finerWindow([young], 7 * MINUTE, now)).toBeNull();
    expect(finerWindow([columns([1, 0, 1], 8 * 60 * MINUTE, now - DAY)], DAY, now)).toBeNull();
    expect(finerWindow([columns([0, 0])], DAY, now)).toBeNull();
  });
  it("has more columns where it is short, as long as few are asked for", () => {
    expect([pointsFor(DAY, 1), pointsFor(15 * MINUTE, 1), pointsFor(MINUTE, 1), pointsFor(MINUTE, 60)]).toEqual([
      96, 384, 960, 400,
    ]);
  });
  it("has a name", () => {
    expect([1, 15, 60, 1440].map((minutes) => windowWords(minutes * MINUTE))).toEqual([
      "Last minute",
      "Last 15 minutes",
      "Last hour",
      "Last 24 hours",
    ]);
  });
});

describe("a trend", () => {
  it("goes on in the column that history ends with", () => {
    const trend = Trend.of("t", "", columns([1, 0, 3]));
    expect(values(trend)).toEqual([0, 2]);
    trend.note(2900, 6);
    expect(values(trend)).toEqual([0, 3]);
    trend.note(3100, 9);
    trend.note(3900, 11);
    expect(values(trend)).toEqual([0, 3, 10]);
    // a clock that was set back
    trend.note(1000, 5);
    expect(values(trend)).toEqual([0, 3, 10]);
  });
  it("without history has each reading once", () => {
    const trend = new Trend("t", "");
    for (const time of [1, 2, 2, 1, 3]) trend.note(time, time);
    expect(values(trend)).toEqual([1, 2, 3]);
  });
  it("tells about when readings came", () => {
    expect(timesOf(columns([2, 0, 4]))).toEqual([0, 500, 2000, 2250, 2500, 2750]);
    expect(timesOf(columns([2, 0, 4]), 3)).toEqual([2250, 2500, 2750]);
    expect(timesOf(columns([0]))).toEqual([]);
  });
});

describe("one question", () => {
  const wanted = (count: number, field: (index: number) => string) =>
    Array.from({ length: count }, (_, index) => ({ topic: `t${index}`, field: field(index) }));
  it("is for few fields of some topics, and leaves the rest to the next one", () => {
    expect(oneQuestion(wanted(30, () => "t"))).toHaveLength(30);
    expect(oneQuestion(wanted(200, () => "t"))).toHaveLength(60);
    expect(oneQuestion(wanted(30, (index) => `f${index}`))).toHaveLength(8);
    expect(oneQuestion([])).toEqual([]);
  });
  it("doesn't mix payloads that are numbers with fields: they can't be asked for by name", () => {
    const mixed = wanted(10, (index) => (index % 2 ? "" : "t"));
    expect(oneQuestion(mixed).map(({ field }) => field)).toEqual(["t", "t", "t", "t", "t"]);
    expect(oneQuestion(mixed.slice(1)).every(({ field }) => field === "")).toBe(true);
  });
});

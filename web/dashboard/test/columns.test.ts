import { describe, expect, it } from "vitest";
import {
  type Columns,
  emptyColumns,
  lineOf,
  lineOfAll,
  nearestIndex,
  niceStep,
  parseAnswer,
  readingAt,
} from "../src/core/columns.ts";
import { Series, seriesKey } from "../src/core/series.ts";

/** Columns of what single readings make, as the gateway answers. */
function columnsOf(
  readings: readonly (readonly [number, number])[],
  start: number,
  step: number,
  count: number,
): Columns {
  const buckets = Array.from({ length: count }, (_, index) =>
    readings.filter(([time]) => Math.floor((time - start) / step) === index).map(([, value]) => value),
  );
  const each = (pick: (values: number[]) => number) => buckets.map((values) => (values.length ? pick(values) : null));
  return {
    start,
    step,
    level: "raw",
    min: each((values) => Math.min(...values)),
    max: each((values) => Math.max(...values)),
    last: each((values) => values[values.length - 1] ?? 0),
    mean: each((values) => values.reduce((sum, value) => sum + value, 0) / values.length),
    count: buckets.map((values) => values.length),
  };
}

function seriesOf(readings: readonly (readonly [number, number])[], firstPlace = 1): Series {
  const made = new Series("t", "");
  for (const [index, [time, value]] of readings.entries()) made.push(time, value, firstPlace + index);
  return made;
}

const steady = (count: number, step = 1000, from = 0) =>
  Array.from({ length: count }, (_, index): [number, number] => [from + index * step, Math.sin(index / 7) * 10]);

describe("the seam between history and what is live", () => {
  it("can't be seen, wherever it is: what came later is put into columns of the same width", () => {
    const readings = steady(400, 250);
    const whole = lineOf(columnsOf(readings, 0, 3000, 34), null, 0, 100_000, 100_000, []);
    for (const seam of [0, 1, 57, 58, 59, 60, 399, 400]) {
      const history = columnsOf(readings.slice(0, seam), 0, 3000, Math.ceil((seam * 250) / 3000));
      // the store reaches further back than where history ends: nothing is counted twice
      const tail = { series: seriesOf(readings), after: seam };
      const line = lineOf(history, tail, 0, 100_000, 100_000, []);
      expect(line.x).toEqual(whole.x);
      expect(line.stats?.count).toBe(400);
      expect(line.newest).toBe(whole.newest);
      for (const [index, value] of line.y.entries()) expect(value).toBeCloseTo(whole.y[index] ?? 0, 9);
      expect(line.band).toEqual(whole.band);
    }
  });
  it("holds when a clock was set back meanwhile", () => {
    const readings: [number, number][] = [...steady(20), [12_500, 5], [13_500, 6], [20_000, 7]];
    const history = columnsOf(readings.slice(0, 20), 0, 2000, 10);
    const line = lineOf(history, { series: seriesOf(readings), after: 20 }, 0, 21_000, 21_000, []);
    expect(line.stats?.count).toBe(23);
    expect(line.y[6]).toBeCloseTo(((readings[12]?.[1] ?? 0) + (readings[13]?.[1] ?? 0) + 5 + 6) / 4, 9);
  });
});

describe("columns", () => {
  it("are read from an answer", () => {
    const answer = parseAnswer({
      position: "k3:9",
      recovered: false,
      gap: { reason: "crash", lost: null },
      start: 1000,
      step: 10,
      points: 2,
      series: [
        {
          topic: "a",
          field: "t",
          level: "hour",
          first: [1, null],
          min: [0, null],
          max: [3, null],
          last: [2, null],
          mean: [1.5, null],
          count: [4, 0],
        },
      ],
      texts: [{ topic: "a", field: "mode", level: "hour", first: ["on", null], last: ["off", null], count: [2, 0] }],
    });
    expect(answer.texts.get(seriesKey("a", "mode"))).toEqual({
      start: 1000,
      step: 10,
      first: ["on", null],
      last: ["off", null],
    });
    expect(answer).toMatchObject({ position: "k3:9", gap: "crash", start: 1000, step: 10, end: 1020 });
    expect(answer.series.get(seriesKey("a", "t"))).toMatchObject({ level: "hour", mean: [1.5, null], count: [4, 0] });
    expect(parseAnswer({ position: "a:1", recovered: true, start: 0, step: 1, points: 0, series: [] }).gap).toBeNull();
  });
  it("have a band only where readings differ, and the mean weighs all readings alike", () => {
    const single = lineOf(columnsOf(steady(10), 0, 1000, 10), null, 0, 10_000, 10_000, []);
    expect(single.band).toBeNull();
    const two = lineOf(
      columnsOf(
        [
          [0, 1],
          [100, 5],
          [200, 3],
          [1000, 11],
        ],
        0,
        1000,
        2,
      ),
      null,
      0,
      2000,
      2000,
      [],
    );
    expect(two.band).toEqual({ low: [1, 11], high: [5, 11] });
    expect(two.stats).toEqual({ min: 1, max: 11, mean: 5, count: 4 });
  });
  it("draw one point beyond each side, which counts for nothing else", () => {
    const line = lineOf(columnsOf(steady(10), 0, 1000, 10), null, 3200, 5200, 10_000, []);
    expect(line.x).toEqual([2500, 3500, 4500, 5500, 6500]);
    expect(line.stats?.count).toBe(3);
  });
  it("draw nothing of the future", () => {
    const line = lineOf(columnsOf(steady(10), 0, 10_000, 1), null, 0, 10_000, 3000, []);
    expect(line.x).toEqual([3000]);
  });
  it("are as wide as a round number of milliseconds, and stand still while a window grows", () => {
    expect([1, 1.2, 3, 700, 5001].map(niceStep)).toEqual([1, 2, 5, 1000, 10_000]);
    const { start, step } = emptyColumns(12_345, 112_345, 100);
    expect([start, step]).toEqual([12_000, 1000]);
  });
});

const breaks = (line: { y: readonly (number | null)[] }) => line.y.filter((value) => value === null).length;
const draw = (readings: readonly (readonly [number, number])[], step: number, gaps = []) => {
  const end = (readings[readings.length - 1]?.[0] ?? 0) + step;
  return lineOf(columnsOf(readings, 0, step, Math.ceil(end / step)), null, 0, end, end, gaps);
};

describe("a line of columns is broken", () => {
  it("where what keeps a rhythm fell silent, whether a column holds many readings or few", () => {
    const readings = [...steady(150), ...steady(150, 1000, 210_000)];
    for (const step of [1000, 5000, 20_000]) expect([step, breaks(draw(readings, step))]).toEqual([step, 1]);
    // shorter than a column
    expect(breaks(draw([...steady(100), ...steady(100, 1000, 103_000)], 20_000))).toBe(0);
  });
  it("where readings are rarer than columns, after three of them at the soonest", () => {
    const rare = (silent: number) => [...steady(30, 10_000), ...steady(30, 10_000, 300_000 + silent * 10_000)];
    expect(breaks(draw(rare(1), 2000))).toBe(0);
    expect(breaks(draw(rare(6), 2000))).toBe(1);
  });
  it("nowhere between the readings of what speaks only on change", () => {
    const times = [0, 1, 2, 600, 601, 4000, 4001, 9000, 9010, 20_000];
    expect(
      breaks(
        draw(
          times.map((second) => [second * 1000, 1]),
          10_000,
        ),
      ),
    ).toBe(0);
  });
  it("nowhere where a sensor was told to report more often, or less", () => {
    const often = steady(600, 1000, 12_000_000);
    expect(breaks(draw([...steady(40, 300_000), ...often], 60_000))).toBe(0);
    expect(breaks(draw([...steady(600), ...steady(40, 300_000, 900_000)], 60_000))).toBe(0);
    expect(breaks(lineOfAll(seriesOf([...steady(40, 300_000), ...often]), 0, 13_000_000, 1000, 13_000_000, []))).toBe(
      0,
    );
  });
  it("nowhere where what is missing came late, all at once: the broker had kept it", () => {
    const late = steady(20, 1, 106_000);
    const readings = [
      ...steady(500, 200),
      ...late,
      ...late.slice(0, 10).map(([time, value]): [number, number] => [time + 30, value]),
      ...steady(300, 200, 106_200),
    ];
    expect(breaks(draw(readings, 1000))).toBe(0);
    const line = lineOfAll(seriesOf(readings), 90_000, 120_000, 1000, 120_000, []);
    expect(breaks(line)).toBe(0);
    const lost = [...steady(500, 200), ...steady(300, 200, 106_000)];
    expect(breaks(draw(lost, 1000))).toBe(1);
    expect(breaks(lineOfAll(seriesOf(lost), 90_000, 120_000, 1000, 120_000, []))).toBe(1);
  });
  it("at each loss that is known, and not within one column", () => {
    const gap = (from: number, to: number) => ({ from, to, reason: "slow", lost: 1 });
    const line = (marks: ReturnType<typeof gap>[]) =>
      lineOf(
        columnsOf(
          steady(100).filter(([time]) => marks.every(({ from, to }) => time <= from || time >= to)),
          0,
          5000,
          20,
        ),
        null,
        0,
        100_000,
        100_000,
        marks,
      );
    expect(breaks(line([gap(24_000, 31_000)]))).toBe(1);
    expect(breaks(line([gap(21_000, 24_000)]))).toBe(0);
    expect(breaks(line([gap(14_000, 15_000), gap(44_000, 45_000)]))).toBe(2);
  });
});

describe("a series that is here in full", () => {
  it("is drawn as it is while it can be seen, else in columns with a band", () => {
    const few = lineOfAll(seriesOf(steady(100)), 0, 100_000, 100, 100_000, []);
    expect([few.x.length, few.band]).toEqual([100, null]);
    const many = lineOfAll(seriesOf(steady(10_000)), 0, 10_000_000, 100, 10_000_000, []);
    expect(many.x.length).toBeLessThanOrEqual(102);
    expect(Math.max(...(many.band?.high ?? []).map(Number))).toBeCloseTo(10, 1);
    expect(many.stats?.count).toBe(10_000);
    expect(many.newest).toBe(steady(10_000)[9999]?.[1]);
  });
});

describe("what a dot stands on", () => {
  it("is the nearest reading of its own line, and none across a break", () => {
    expect(nearestIndex([0, 30, 40], [1, 4, 5], 14)).toBe(0);
    expect(nearestIndex([0, 30, 40], [1, 4, 5], 16)).toBe(1);
    const x = [0, 10, 20, 30, 40];
    expect(nearestIndex(x, [1, null, null, 4, 5], 12)).toBe(-1);
    expect(nearestIndex(x, [1, null, null, 4, 5], 26)).toBe(3);
    expect(nearestIndex(x, [1, 2, 3, 4, 5], 99)).toBe(4);
    expect(nearestIndex([], [], 5)).toBe(-1);
  });
  it("is told with how far it went", () => {
    const line = lineOf(
      columnsOf(
        [
          [0, 1],
          [100, 3],
          [1000, 11],
        ],
        0,
        1000,
        2,
      ),
      null,
      0,
      2000,
      2000,
      [],
    );
    expect(readingAt(line, 400)).toEqual({ time: 500, value: 2, low: 1, high: 3 });
    expect(readingAt(line, 1400)).toEqual({ time: 1500, value: 11, low: 11, high: 11 });
  });
});

import { describe, expect, it } from "vitest";
import { extent, pointsIn, Series, sparkPath } from "../src/core/series.ts";

function series(times: number[], values = times): Series {
  const made = new Series("t", "");
  for (const [index, time] of times.entries()) made.push(time, values[index] ?? 0);
  return made;
}

const steady = (count: number, step = 1000, from = 0) =>
  Array.from({ length: count }, (_, index) => from + index * step);

describe("a series", () => {
  it("finds its place in time", () => {
    const line = series([10, 20, 30]);
    expect(line.indexAt(5)).toBe(0);
    expect(line.indexAt(20)).toBe(1);
    expect(line.indexAt(31)).toBe(3);
    expect(line.valueAt(25)).toBe(20);
    expect(line.valueAt(9)).toBeNull();
  });
  it("keeps time order when a clock steps back", () => {
    const line = series([10, 30, 20]);
    expect([line.time(0), line.time(1), line.time(2)]).toEqual([10, 20, 30]);
  });
  it("is bounded, lets the oldest go and counts them", () => {
    const line = new Series("t", "", 80);
    for (let index = 0; index < 1000; index++) line.push(index, index);
    expect(line.length).toBeLessThanOrEqual(80);
    expect(line.lastValue).toBe(999);
    expect(line.dropped + line.length).toBe(1000);
    expect(line.time(0)).toBe(line.dropped);
  });
});

describe("gaps", () => {
  it("breaks a steady line where it fell silent", () => {
    const points = pointsIn(series([...steady(20), ...steady(20, 1000, 60_000)]), 0, 100_000, 500, []);
    expect(points.y.filter((value) => value === null)).toHaveLength(1);
  });
  it("doesn't break a line that speaks only on change", () => {
    const times = [0, 1, 2, 600, 601, 4000, 4001, 9000, 9010, 20_000].map((seconds) => seconds * 1000);
    expect(pointsIn(series(times), 0, 2e7, 500, []).y).not.toContain(null);
  });
  it("breaks every line at a known loss", () => {
    const gap = { from: 4500, to: 5500, reason: "slow", lost: 3 };
    const points = pointsIn(series(steady(4).concat(steady(4, 1000, 6000))), 0, 10_000, 500, [gap]);
    expect(points.y.indexOf(null)).toBe(4);
  });
  it("doesn't break again for a loss that is over", () => {
    const gap = { from: 2500, to: 2600, reason: "slow", lost: 3 };
    const points = pointsIn(series(steady(10)), 5000, 10_000, 500, [gap]);
    expect(points.y).not.toContain(null);
    expect(pointsIn(series(steady(10)), 0, 10_000, 500, [gap]).y.filter((value) => value === null)).toHaveLength(1);
  });
});

describe("drawing", () => {
  it("keeps the spikes of 20,000 points in a few pixels", () => {
    const line = series(
      steady(19_000),
      steady(19_000).map((_, index) => (index === 7777 ? 100 : index === 7778 ? -50 : 1)),
    );
    const points = pointsIn(line, 0, 19_000_000, 100, []);
    expect(points.x.length).toBeLessThan(500);
    expect(Math.max(...points.y.map((value) => value ?? 0))).toBe(100);
    expect(Math.min(...points.y.map((value) => value ?? 0))).toBe(-50);
    expect([...points.x].sort((a, b) => a - b)).toEqual(points.x);
  });
  it("draws one point beyond each side, so that a line reaches the edge", () => {
    expect(pointsIn(series(steady(10)), 3500, 5500, 500, []).x).toEqual([3000, 4000, 5000, 6000]);
  });
  it("breaks each of several lines at each loss and at its own silence", () => {
    const gaps = [
      { from: 20_000, to: 22_500, reason: "slow", lost: 3 },
      { from: 40_000, to: 42_000, reason: "slow", lost: null },
    ];
    const isKept = (time: number) => gaps.every((gap) => time <= gap.from || time >= gap.to);
    const a = series(steady(60).filter(isKept));
    const b = series(steady(60, 1000, 500).filter((time) => isKept(time) && (time < 50_000 || time > 55_000)));
    const breaks = [a, b].map((line) => {
      const { x, y } = pointsIn(line, 0, 60_000, 500, gaps);
      return y.flatMap((value, index) => (value === null ? [[x[index - 1], x[index + 1]]] : []));
    });
    expect(breaks).toEqual([
      [
        [20_000, 23_000],
        [40_000, 42_000],
      ],
      [
        [19_500, 22_500],
        [39_500, 42_500],
        [49_500, 55_500],
      ],
    ]);
  });
  it("breaks at a loss in the middle of a pixel", () => {
    const gap = { from: 5_000_000, to: 5_001_000, reason: "slow", lost: 1 };
    const points = pointsIn(series(steady(10_000)), 0, 10_000_000, 100, [gap]);
    const at = points.y.indexOf(null);
    expect([points.x[at - 1], points.x[at + 1]]).toEqual([5_000_000, 5_001_000]);
  });
  it("knows the extent of a window", () => {
    expect(extent(series(steady(10)), 2000, 4000)).toEqual([2000, 4000]);
    expect(extent(series(steady(10)), 20_000, 40_000)).toBeNull();
  });
});

describe("sparklines", () => {
  it("stay in their box", () => {
    const path = sparkPath(series(steady(50), steady(50).map(Math.sin)), 0, 49_000, 100, 24);
    const coordinates = [...path.matchAll(/[ML](-?[\d.]+) (-?[\d.]+)/g)].map((match) => [
      Number(match[1]),
      Number(match[2]),
    ]);
    expect(coordinates.length).toBeGreaterThan(40);
    for (const [x = -1, y = -1] of coordinates) {
      expect(x).toBeGreaterThanOrEqual(0);
      expect(x).toBeLessThanOrEqual(100);
      expect(y).toBeGreaterThanOrEqual(0);
      expect(y).toBeLessThanOrEqual(24);
    }
  });
  it("give a trend all of the height and jitter less than half", () => {
    const height = (values: number[]) => {
      const path = sparkPath(series(steady(values.length), values), 0, values.length * 1000, 100, 24);
      const ys = [...path.matchAll(/[ML]-?[\d.]+ (-?[\d.]+)/g)].map((match) => Number(match[1]));
      return Math.max(...ys) - Math.min(...ys);
    };
    expect(height(Array.from({ length: 100 }, (_, index) => index))).toBeCloseTo(20);
    expect(height(Array.from({ length: 100 }, (_, index) => ((index * 7919) % 13) / 13))).toBeLessThan(10);
  });
  it("draw a dot for one point, nothing for none, the middle for a flat one", () => {
    expect(sparkPath(series([500], [3]), 0, 1000, 100, 20)).toBe("M50.0 10.0h0.01");
    expect(sparkPath(series([]), 0, 1000, 100, 20)).toBe("");
    expect(sparkPath(series([0, 1000], [5, 5]), 0, 1000, 100, 20)).toBe("M0.0 10.0L100.0 10.0");
  });
});

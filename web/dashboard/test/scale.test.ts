import { describe, expect, it } from "vitest";
import type { Line } from "../src/core/columns.ts";
import { airy, extentOf, parseScale, rangeOf, scaleText, travelOf } from "../src/core/scale.ts";

function line(values: (number | null)[], band: Line["band"] = null): Line {
  return { x: values.map((_, index) => index), y: values, band, stats: null, newest: null };
}

const usual = Array.from({ length: 200 }, (_, index) => 20 + Math.sin(index / 9));

describe("a scale by itself", () => {
  it("isn't ruled by a reading that is far off, and says that there is one", () => {
    const extent = extentOf([line([...usual, 85, ...usual])], 0, 1e9, false);
    expect(extent).toMatchObject({ above: 1, below: 0 });
    expect(extent?.high).toBeCloseTo(21, 1);
    expect(extentOf([line([...usual, -127, ...usual])], 0, 1e9, false)).toMatchObject({ above: 0, below: 1 });
    expect(extentOf([line([...usual, 85, ...usual])], 0, 1e9, true)).toMatchObject({ high: 85, above: 0 });
  });
  it("is ruled by what comes often, by what is not so far off, and where most readings are the same", () => {
    const kettle = usual.map((value, index) => (index % 30 === 0 ? 2000 : value));
    expect(extentOf([line(kettle)], 0, 1e9, false)).toMatchObject({ high: 2000, above: 0 });
    expect(extentOf([line([...usual, 24])], 0, 1e9, false)).toMatchObject({ high: 24, above: 0 });
    expect(extentOf([line([...new Array(100).fill(0), 5])], 0, 1e9, false)).toMatchObject({ high: 5, above: 0 });
    expect(extentOf([line([1, 2, 1, 2, 90])], 0, 1e9, false)).toMatchObject({ high: 90, above: 0 });
  });
  it("is of what is in the window, bands and all", () => {
    expect(extentOf([line([1, null, 3, 9])], 0, 2, false)).toMatchObject({ low: 1, high: 3 });
    expect(extentOf([line([2], { low: [1], high: [4] })], 0, 9, false)).toMatchObject({ low: 1, high: 4 });
    expect(extentOf([line([null])], 0, 9, false)).toBeNull();
  });
  it("has air, and shows thresholds that are near", () => {
    expect(airy({ low: 10, high: 20 }, [])).toEqual([8.8, 21.2]);
    expect(airy({ low: 0, high: 20 }, [])[0]).toBe(0);
    expect(airy({ low: 10, high: 20 }, [25, 900])[1]).toBeGreaterThan(25);
    expect(airy({ low: 10, high: 20 }, [25, 900])[1]).toBeLessThan(900);
  });
});

describe("a scale that was chosen", () => {
  it("is written into addresses and read back", () => {
    for (const text of ["temperature:10..30", "a:b:log", ":zero", "t:-1.5..2", "t:all"]) {
      const found = parseScale(text);
      expect(found && scaleText(found.field, found.scale)).toBe(text);
    }
    for (const text of ["temperature", "t:30..10", "t:1..1", "t:auto", "t:x..y"]) expect(parseScale(text)).toBeNull();
  });
  it("goes from zero, between its bounds, or from one power of ten to another", () => {
    const extent = { low: 5, high: 300, above: 0, below: 0 };
    expect(rangeOf("zero", extent, [])[0]).toBe(0);
    expect(rangeOf({ low: 1, high: 2 }, extent, [])).toEqual([1, 2]);
    expect(rangeOf("log", extent, [])).toEqual([1, 1000]);
    expect(rangeOf("log", { ...extent, low: 0 }, [])).toEqual([0.1, 1000]);
    expect(rangeOf("log", null, [])).toEqual([1, 10]);
    expect(rangeOf("zero", { low: -9, high: -3, above: 0, below: 0 }, [])[1]).toBe(0);
  });
});

describe("how far a line goes up and down", () => {
  it("is in heights of its scale, breaks left out", () => {
    expect(travelOf([0, 5, 0], [0, 10], false)).toBe(1);
    expect(travelOf([0, 10, null, 0, 10], [0, 10], false)).toBe(2);
    expect(travelOf([], [0, 10], false)).toBe(0);
  });
  it("counts what is beyond the scale as its edge, and powers of ten as steps", () => {
    expect(travelOf([0, 1000, 0], [0, 10], false)).toBe(2);
    expect(travelOf([1, 10, 0, 100, 1], [1, 100], true)).toBe(1.5);
  });
});

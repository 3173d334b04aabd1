import { describe, expect, it } from "vitest";
import { cutAt, dragged, heldBefore, liveWindow, parseWindow, scaled } from "../src/core/window.ts";

const params = (text: string) => new URLSearchParams(text);

describe("a chart's window", () => {
  it("is what the address names, where that is one", () => {
    expect(parseWindow(params("from=1000&to=2000"))).toEqual({ from: 1000, to: 2000 });
    for (const text of ["", "from=1000", "from=2000&to=1000", "from=a&to=b", "from=-5&to=5"]) {
      expect(parseWindow(params(text))).toBeNull();
    }
  });
  it("is otherwise the last of the time, as far as there is history", () => {
    expect(liveWindow(900_000, 1_000_000, null)).toEqual({ from: 100_000, to: 1_000_000 });
    expect(liveWindow(900_000, 1_000_000, 5000)).toEqual({ from: 100_000, to: 1_000_000 });
    expect(liveWindow(900_000, 1_000_000, 900_000)).toEqual({ from: 898_000, to: 1_000_000 });
    expect(liveWindow(900_000, 1_000_000, 999_000)).toEqual({ from: 970_000, to: 1_000_000 });
  });
  it("shows nothing of the future, and no less than a tenth of a second", () => {
    expect(cutAt(2000, { from: 1000.4, to: 3000 })).toEqual({ from: 1000, to: 2000 });
    expect(cutAt(2000, { from: 1950, to: 3000 })).toBeNull();
  });
  it("is moved back from the future as wide as it was", () => {
    expect(heldBefore(2000, { from: 1500, to: 2500 })).toEqual({ from: 1000, to: 2000 });
    expect(heldBefore(2000, { from: 500, to: 1500 })).toEqual({ from: 500, to: 1500 });
  });
  it("follows one finger, and is stretched by two", () => {
    const window = { from: 1000, to: 2000 };
    expect(dragged(window, { time: 1500, at: 0.75 })).toEqual({ from: 750, to: 1750 });
    const stretched = dragged(window, { time: 1400, at: 0.2 }, { time: 1600, at: 0.8 });
    expect([Math.round(stretched.from), Math.round(stretched.to)]).toEqual([1333, 1667]);
    // fingers that cross or meet
    expect(dragged(window, { time: 1400, at: 0.5 }, { time: 1600, at: 0.5 })).toEqual({ from: 900, to: 1900 });
  });
  it("zooms about its middle and moves by a part of its width", () => {
    expect(scaled({ from: 1000, to: 2000 }, 2)).toEqual({ from: 500, to: 2500 });
    expect(scaled({ from: 1000, to: 2000 }, 1, -0.25)).toEqual({ from: 750, to: 1750 });
  });
});

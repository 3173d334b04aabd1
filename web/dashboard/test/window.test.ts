import { describe, expect, it } from "vitest";
import { cutAt, liveWindow, parseWindow, reachOf, scaled } from "../src/core/window.ts";

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
  it("asks for history only where it reaches further back than what is here", () => {
    expect(reachOf(null, 5000)).toBeNull();
    expect(reachOf({ from: 6000, to: 7000 }, 5000)).toBeNull();
    expect(reachOf({ from: 4000, to: 4500 }, 5000)).toBe(3000);
    expect(reachOf({ from: 4000, to: 9000 }, 5000)).toBe(0);
  });
  it("shows nothing of the future, and no less than a tenth of a second", () => {
    expect(cutAt(2000, { from: 1000.4, to: 3000 })).toEqual({ from: 1000, to: 2000 });
    expect(cutAt(2000, { from: 1950, to: 3000 })).toBeNull();
  });
  it("zooms about its middle and moves by a part of its width", () => {
    expect(scaled({ from: 1000, to: 2000 }, 2)).toEqual({ from: 500, to: 2500 });
    expect(scaled({ from: 1000, to: 2000 }, 1, -0.25)).toEqual({ from: 750, to: 1750 });
  });
});

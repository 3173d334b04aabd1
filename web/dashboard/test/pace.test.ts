import { expect, it } from "vitest";
import { Beat, beatOf, drawableHz, paceOf } from "../src/core/pace.ts";

it.each([
  ["a minute on a wide page", 60_000, 1200, 64],
  ["a quarter of an hour", 900_000, 1200, 4],
  ["the same a little wider", 900_000, 1250, 4],
  ["a year", 365 * 86_400_000, 1200, 1],
  ["a second", 1000, 1200, 1000],
])("asks for what can be drawn of %s", (_, span, pixels, hz) => expect(drawableHz(span, pixels)).toBe(hz));

it("asks for every message where they are listed, until they are too many, and doesn't waver", () => {
  const pace = (rate: number, isPaced: boolean, hasList = true) => paceOf({ hasList, rate, isPaced }, 4);
  expect(pace(0, false, false)).toBe(4);
  expect(pace(199, false)).toBe(Number.POSITIVE_INFINITY);
  expect(pace(201, false)).toBe(4);
  expect(pace(150, true)).toBe(4);
  expect(pace(99, true)).toBe(Number.POSITIVE_INFINITY);
});

it.each([
  ["a minute on a wide page", 60_000, 1200, 250],
  ["a quarter of an hour", 900_000, 1200, 750],
  ["a day", 86_400_000, 1200, 1000],
])("moves a chart of %s on when it has moved by a pixel, but at least once a second", (_, span, pixels, ms) =>
  expect(beatOf(span, pixels)).toBe(ms),
);

it("stands still between two beats, whatever comes, and lives with a clock that is set back", () => {
  const beat = new Beat();
  const tick = (now: number, version: number) => {
    beat.tick(now, version, 750);
    return [beat.now, beat.version];
  };
  expect(tick(10_000, 1)).toEqual([10_000, 1]);
  expect(tick(10_500, 9)).toEqual([10_000, 1]);
  expect(tick(10_750, 12)).toEqual([10_750, 12]);
  expect(tick(5_000, 13)).toEqual([5_000, 13]);
});

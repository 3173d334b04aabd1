import { expect, it } from "vitest";
import { drawableHz, paceOf } from "../src/core/pace.ts";

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

import { expect, it } from "vitest";
import { Delays } from "../src/core/delays.ts";
import { metaFilter, Units } from "../src/units.ts";

it("keeps percentiles of the newest delays only", () => {
  const delays = new Delays();
  expect(delays.percentile(50)).toBeNull();
  for (let index = 1; index <= 1000; index++) delays.note(index);
  expect(delays.percentile(50)).toBe(800);
  expect(delays.percentile(100)).toBe(1000);
  delays.note(Number.NaN);
  expect(delays.percentile(100)).toBe(1000);
});

it("finds the meta messages that tell units", () => {
  expect(metaFilter("sensors/a/state")).toBe("sensors/a/meta");
  expect(metaFilter("sensors/+/state")).toBe("sensors/+/meta");
  expect(metaFilter("sensors/#")).toBeNull();
  expect(metaFilter("plugs/a/state")).toBeNull();
});

it("gives no unit where devices disagree", () => {
  const units = new Units();
  const meta = (unit: string) => ({ fields: { t: { unit }, h: { unit: "%" } } });
  expect(units.note("sensors/a/meta", meta("°C"))).toBe(true);
  expect(units.of("t", [])).toBe("°C");
  units.note("sensors/b/meta", meta("°F"));
  expect([units.of("t", []), units.of("h", []), units.of("x", [])]).toEqual(["", "%", ""]);
  expect(units.note("sensors/a/state", {})).toBe(false);
});

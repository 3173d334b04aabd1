import { describe, expect, it } from "vitest";
import { defaultFields } from "../src/core/values.ts";
import { Units } from "../src/units.ts";

describe("what sensors say of their fields", () => {
  const units = new Units();
  units.note("sensors/a/meta", {
    fields: {
      temperature: { unit: "°C", device_class: "temperature" },
      wifi: { unit: "dBm", device_class: "signal_strength" },
      cell: { unit: "%", device_class: "battery" },
    },
  });
  const choose = (...offered: string[]) => defaultFields(offered, 1, (field) => units.isService(field));

  it("keeps out of a chart what is about the sensor itself, whatever it is called", () => {
    expect(choose("wifi", "cell", "temperature", "gusts", "seq", "ts")).toEqual(["temperature", "gusts"]);
  });
  it("draws that all the same where there is nothing else", () => {
    expect(choose("wifi", "seq")).toEqual(["wifi", "seq"]);
  });
});

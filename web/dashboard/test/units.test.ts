import { describe, expect, it } from "vitest";
import { Fleet } from "../src/core/devices.ts";
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
  it("has names and units of other devices from the gateway", () => {
    const fleet = new Fleet();
    const field = (name: string, topic: string, path: string, more: object = {}) => ({
      ...{ id: name, name, kind: "number", unit: "°C", device_class: "", topic, path },
      ...more,
    });
    const announce = (id: string, ...fields: ReturnType<typeof field>[]) =>
      fleet.announce({
        ...{ id, name: id.toUpperCase(), kind: "", model: "", area: "", version: "", announced_by: ["homie"] },
        ...{ availability: "online", seen: null, commands: [], fields },
      });
    announce("a", field("Indoor", "h/a/in", ""), field("Outdoor", "h/a/out", ""));
    announce("b", field("T", "t/b", "S.T"), field("V", "t/b", "S.mv", { unit: "V", scale: 0.001 }));
    announce("c", field("T", "t/c", "S.T", { unit: "°F" }));
    announce("d", field("T", "t/c", "x"));
    const others = new Units(fleet);
    expect(others.name(["h/a/in", "h/a/out", "t/b", "t/c"], ["", "", "", "t/c"])).toEqual([
      "A Indoor",
      "A Outdoor",
      "B",
      "t/c",
    ]);
    expect(others.of("", ["h/a/in", "h/a/out"])).toBe("°C");
    expect(others.of("S.T", ["t/b"])).toBe("°C");
    expect(others.of("S.T", ["t/b", "t/c"])).toBe("");
    // millivolts are not volts
    expect(others.of("S.mv", ["t/b"])).toBe("");
    fleet.forget("a");
    expect(others.nameOf("h/a/in")).toBe(null);
  });
  it("draws that all the same where there is nothing else", () => {
    expect(choose("wifi", "seq")).toEqual(["wifi", "seq"]);
  });
});

import { describe, expect, it } from "vitest";
import type { Announced, AnnouncedField } from "../src/core/announced.ts";
import { emptyColumns } from "../src/core/columns.ts";
import { Fleet } from "../src/core/devices.ts";
import { byPath, lensOf, readingsIn, translated } from "../src/core/lens.ts";
import { seriesKey } from "../src/core/series.ts";

function told(id: string, topic: string, path: string | null, more: Partial<AnnouncedField> = {}): Announced {
  const field = { id: "t", name: "T", kind: "number", unit: "°C", device_class: "temperature", topic, path, ...more };
  return {
    id,
    name: id.toUpperCase(),
    kind: "",
    model: "",
    area: "",
    version: "",
    announced_by: ["tasmota"],
    availability: "online",
    seen: null,
    fields: [field],
    commands: [],
  };
}

function fleet(): Fleet {
  const made = new Fleet();
  made.announce(told("b", "tele/b/SENSOR", "AM2301.Temperature"));
  made.announce(told("a", "z/a", "temperature"));
  made.announce(told("mv", "z/mv", "mv", { scale: -0.1, offset: 5 }));
  made.announce(told("f", "z/f", "temperature", { unit: "°F" }));
  made.announce(told("p", "spBv1.0/g/DDATA/n/p", null, { metric: "Inputs/T.1", unit: "" }));
  made.announce(told("humid", "z/h", "humidity", { device_class: "humidity" }));
  made.note({ topic: "sensors/own/meta", payload: { name: "Own", fields: { temperature: { unit: "°C" } } }, time: 1 });
  made.note({ topic: "sensors/own/state", payload: { temperature: 7 }, time: 1 });
  return made;
}

describe("a lens", () => {
  const lens = lensOf(fleet().devices.values(), "temperature");

  it("finds a quantity whatever payloads call it, in the unit that most have", () => {
    expect([...lens.labels.values()]).toEqual(["A", "B", "MV", "Own", "P"]);
    expect([lens.unit, lens.others]).toEqual(["°C", 1]);
    expect(lensOf(fleet().devices.values(), "voltage").places.size).toBe(0);
  });

  it("has all that a device has of a quantity, but nothing of the device itself", () => {
    const made = fleet();
    const several = told("c", "tele/c/SENSOR", "A.Temperature", { id: "A.Temperature", name: "A Temperature" });
    several.fields.push({
      ...several.fields[0],
      id: "B.Temperature",
      name: "B Temperature",
      path: "B.Temperature",
    } as AnnouncedField);
    several.fields.push({ ...several.fields[0], id: "dew", name: "Dew point", path: "A.DewPoint" } as AnnouncedField);
    const chip = { id: "chip", name: "ESP32 Temperature", path: "ESP32.Temperature", diagnostic: true };
    const one = told("d", "tele/d/SENSOR", "AM2301.Temperature");
    for (const each of [several, one]) each.fields.push({ ...each.fields[0], ...chip } as AnnouncedField);
    made.announce(several);
    made.announce(one);
    const all = lensOf(made.devices.values(), "temperature");
    expect([...all.labels.values()]).toEqual(["A", "B", "C A Temperature", "C B Temperature", "D", "MV", "Own", "P"]);
    const payload = { A: { Temperature: 1 }, B: { Temperature: 2 }, ESP32: { Temperature: 50 } };
    expect(readingsIn(all, "tele/c/SENSOR", payload)).toEqual([
      ["c a temperature", 1],
      ["c b temperature", 2],
    ]);
    made.note({ topic: "tele/c/SENSOR", payload, time: 1 });
    made.note({ topic: "tele/d/SENSOR", payload: { AM2301: { Temperature: 3 } }, time: 1 });
    // of those that have told a reading
    expect(made.quantityCounts().get("temperature")).toBe(3);
  });

  it("reads messages as readings of devices", () => {
    expect(readingsIn(lens, "tele/b/SENSOR", { AM2301: { Temperature: 21.5 } })).toEqual([["b", 21.5]]);
    expect(readingsIn(lens, "z/mv", { mv: 30 })).toEqual([["mv", 2]]);
    expect(readingsIn(lens, "spBv1.0/g/DDATA/n/p", { values: { "Inputs/T.1": 4 } })).toEqual([["p", 4]]);
    expect(readingsIn(lens, "sensors/own/state", { temperature: 9 })).toEqual([["own", 9]]);
    expect(readingsIn(lens, "z/f", { temperature: 70 })).toEqual([]);
  });

  it("asks for the past of what has the same path together, and reads the answer", () => {
    expect([...byPath(lens, ["a", "own", "b", "p", "nobody"])]).toEqual([
      ["temperature", ["a", "own"]],
      ["AM2301.Temperature", ["b"]],
      ["values.Inputs/T\\.1", ["p"]],
    ]);
    const columns = { ...emptyColumns(0, 10, 1), min: [10], max: [20], last: [20], mean: [15], count: [2] };
    const answer = {
      position: "e:1",
      gap: null,
      start: 0,
      step: 10,
      end: 10,
      series: new Map([
        [seriesKey("z/mv", "mv"), columns],
        [seriesKey("z/a", "temperature"), columns],
        [seriesKey("z/other", "temperature"), columns],
      ]),
      texts: new Map(),
    };
    const { series } = translated(lens, ["a", "mv"], answer);
    expect([...series.keys()]).toEqual([seriesKey("a", "temperature"), seriesKey("mv", "temperature")]);
    expect(series.get(seriesKey("a", "temperature"))).toBe(columns);
    // the least of what is turned round is what was the greatest
    expect(series.get(seriesKey("mv", "temperature"))).toMatchObject({ min: [3], max: [4], mean: [3.5], last: [3] });
  });
});

import { describe, expect, it } from "vitest";
import { type Announced, filterOf, placesOf, readingAt } from "../src/core/announced.ts";
import { Fleet, listDevices } from "../src/core/devices.ts";

function told(id: string, more: Partial<Announced> = {}): Announced {
  return {
    id,
    name: id.toUpperCase(),
    kind: "sensor",
    model: "M",
    area: "",
    version: "",
    announced_by: ["tasmota"],
    availability: "online",
    seen: null,
    fields: [],
    commands: [],
    ...more,
  };
}

const field = (name: string, path: string | null, more: object = {}) => ({
  id: name,
  name,
  kind: "number",
  unit: "",
  device_class: "",
  topic: "t/SENSOR",
  path,
  ...more,
});

describe("what the gateway tells of devices", () => {
  it("has the same name for the same quantity, however a payload spells it", () => {
    const fields = [
      field("Temperature", "AM2301.Temperature", { device_class: "temperature" }),
      field("CO₂", "SCD40.CarbonDioxide", { device_class: "carbon_dioxide" }),
      field("Power 1", "ENERGY.Power[0]", { device_class: "power" }),
      field("Power 2", "ENERGY.Power[1]", { device_class: "power" }),
      field("Mode", "Mode", { kind: "text" }),
      field("Computed", null),
    ];
    expect([...placesOf(told("a", { fields })).keys()]).toEqual(["temperature", "co2", "power 1", "power 2"]);
  });

  it("is found in payloads of all forms", () => {
    const at = (path: string | null, payload: unknown, more: object = {}) => {
      const [place] = placesOf(told("a", { fields: [field("x", path, more)] })).values();
      return place ? readingAt(place, payload) : "no place";
    };
    expect(at("ENERGY.Power[1]", { ENERGY: { Power: [1, 2] } })).toBe(2);
    expect(at("", "21.5 °C")).toBe(21.5);
    expect(at("", "ON")).toBe(1);
    expect(at("mv", { mv: 3300 }, { scale: 0.001 })).toBeCloseTo(3.3);
    expect(at(null, { metrics: [{ name: "T", value: 7 }] }, { metric: "T" })).toBe(7);
    expect(at("a.b", { a: 1 })).toBe(null);
    expect(at("constructor", {})).toBe(null);
    expect(at(null, {})).toBe("no place");
  });

  it("is seen together by the levels that its topics share", () => {
    expect(filterOf(["a/b"])).toBe("a/b");
    expect(filterOf(["a/b/c", "a/b/d/e"])).toBe("a/b/#");
    expect(filterOf(["a/b", "c/d"])).toBe(null);
    expect(filterOf([])).toBe(null);
  });
});

describe("a fleet of others", () => {
  const query = { text: "", status: null, sort: "name", descending: false } as const;

  it("has names, units, readings and each project's own word for whether it is there", () => {
    const fleet = new Fleet();
    const temperature = field("Temperature", "AM2301.Temperature", { device_class: "temperature", unit: "°C" });
    fleet.announce(told("a", { fields: [temperature], availability: "offline", seen: 500 }));
    expect(fleet.note({ topic: "t/SENSOR", payload: { AM2301: { Temperature: 21.5 } }, time: 1000 })).toBe(true);
    const device = fleet.devices.get("a");
    expect(device?.title).toBe("A");
    expect([...(device?.readings ?? [])]).toEqual([["temperature", 21.5]]);
    expect(device?.unit("temperature")).toBe("°C");
    expect(device?.status(1000)).toBe("offline");
    expect(device?.place("temperature")).toMatchObject({ topic: "t/SENSOR", path: "AM2301.Temperature" });
    fleet.forget("a");
    expect(fleet.note({ topic: "t/SENSOR", payload: {}, time: 1000 })).toBe(false);
    expect(fleet.devices.size).toBe(0);
  });

  it("has what the gateway knows of values that the newest message lacks, but nothing older than what came", () => {
    const fleet = new Fleet();
    const metric = (name: string) => field(name, null, { metric: name, topic: "spBv1.0/g/DDATA/n/p" });
    fleet.announce(told("p", { fields: [metric("A"), metric("B.1"), metric("Run"), metric("None")] }));
    fleet.announce(told("q", { fields: [field("Temperature", "t")] }));
    const [p, q] = ["p", "q"].map((id) => fleet.devices.get(id));
    if (!p || !q) throw new Error("they are not there");
    expect([p.isPartial, q.isPartial]).toEqual([true, false]);
    fleet.note({ topic: "spBv1.0/g/DDATA/n/p", payload: { values: { A: 2 } }, time: 1 });
    const value = (id: string, known: unknown) => ({ id, value: known, time: 1 });
    fleet.fill(p, [value("A", 1), value("B.1", 7), value("Run", true), value("None", null), value("Other", 3)]);
    expect([...p.readings]).toEqual([
      ["a", 2],
      ["b.1", 7],
      ["run", 1],
    ]);
    fleet.fill(q, [value("Temperature", 5)]);
    expect(q.readings.size).toBe(0);
  });

  it("takes values of Sparkplug from what announces them, too, and the newest ones", () => {
    const fleet = new Fleet();
    fleet.announce(told("p", { fields: [field("A", null, { metric: "A", topic: "spBv1.0/DATA/DDATA/n/p" })] }));
    const say = (kind: string, value: number, time: number) =>
      fleet.note({ topic: `spBv1.0/DATA/${kind}/n/p`, payload: { values: { A: value } }, time });
    for (const [kind, value] of [
      ["DBIRTH", 1],
      ["DDATA", 2],
      ["DBIRTH", 3],
    ] as const) {
      expect(say(kind, value, value)).toBe(true);
      expect(fleet.devices.get("p")?.readings.get("a")).toBe(value);
    }
    fleet.forget("p");
    expect(say("DBIRTH", 4, 4)).toBe(false);
  });

  it("notices devices that say one thing at a time", () => {
    const fleet = new Fleet();
    const say = (topic: string, payload: unknown, skipped = 0) => fleet.note({ topic, payload, time: 1, skipped });
    for (const id of ["a", "b", "c"])
      fleet.announce(told(id, { fields: [field("T", "t", { topic: id }), field("H", "h", { topic: id })] }));
    const parts = () => [...fleet.devices.values()].map(({ speaksInParts }) => speaksInParts);
    for (const id of ["a", "b", "c"]) say(id, { t: 1 });
    expect(parts()).toEqual([false, false, false]);
    say("a", { h: 1 });
    // what was left out may have had it
    say("b", { t: 1 }, 3);
    say("c", "text");
    say("c", { t: 1, h: 1 }, 3);
    expect(parts()).toEqual([true, true, false]);
    expect([...fleet.devices.values()].map(({ isPartial }) => isPartial)).toEqual([false, false, false]);
  });

  it("leaves our own sensors as they say themselves", () => {
    const fleet = new Fleet();
    fleet.note({ topic: "sensors/k1/state", payload: { temperature: 1 }, time: 1000 });
    fleet.announce(told("sensors_k1", { announced_by: ["meta"], area: "Hall" }));
    expect([...fleet.devices.keys()]).toEqual(["k1"]);
    expect(fleet.devices.get("k1")).toMatchObject({ area: "Hall", places: null });
    expect(fleet.devices.get("k1")?.status(1000)).toBe("online");
  });

  it("is put together by area, those without one last", () => {
    const fleet = new Fleet();
    for (const [id, area] of [
      ["a", ""],
      ["b", "Kitchen"],
      ["c", "Attic"],
      ["d", "Kitchen"],
    ] as const)
      fleet.announce(told(id, { area }));
    const { rows } = listDevices(fleet, { ...query, group: "area" }, 0);
    expect(rows.map(({ device }) => device.id)).toEqual(["c", "b", "d", "a"]);
    expect(listDevices(fleet, { ...query, text: "kitchen" }, 0).rows).toHaveLength(2);
  });
});

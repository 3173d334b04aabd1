import { describe, expect, it } from "vitest";
import { type Device, Fleet, listDevices, type Query, signalBars } from "../src/core/devices.ts";

const META = {
  schema: 1,
  name: "Kitchen",
  model: "ESP32-C3",
  firmware: "1.2.0",
  interval: 10,
  fields: { temperature: { unit: "°C", device_class: "temperature", min: -40, max: 85 }, bad: 7 },
};
const DUST = { schema: 1, fields: { "PM2.5": { unit: "µg/m³" }, "outdoor.t": { unit: "°C" } } };
const query: Query = { text: "", status: null, sort: "name", descending: false };

function fleetOf(...messages: [topic: string, payload: unknown, time?: number][]): Fleet {
  const fleet = new Fleet();
  for (const [topic, payload, time] of messages) fleet.note({ topic, payload, time: time ?? 1000 });
  return fleet;
}

function get(fleet: Fleet, id: string): Device {
  const device = fleet.devices.get(id);
  if (!device) throw new Error(`no device ${id}`);
  return device;
}

describe("a device", () => {
  it("finds the unit of a field whose name holds a dot, and of one that is a path", () => {
    const device = get(fleetOf(["sensors/a/meta", DUST], ["sensors/a/state", { "PM2.5": 4, outdoor: { t: 1 } }]), "a");
    expect([...device.readings.keys()].map((field) => device.unit(field))).toEqual(["µg/m³", "°C"]);
  });
  it("is put together from meta, status and state in any order", () => {
    const fleet = fleetOf(
      ["sensors/k1/state", { ts: 1, seq: 4, boot: 2, temperature: 21.5, rssi: -60, battery: 88 }],
      ["sensors/k1/status", "online"],
      ["sensors/k1/meta", META],
    );
    const device = get(fleet, "k1");
    expect(device.title).toBe("Kitchen");
    expect(device.unit("temperature")).toBe("°C");
    expect(device.fields.has("bad")).toBe(false);
    expect([device.battery, device.signal]).toEqual([88, -60]);
    expect(device.shown().map(([field]) => field)).toEqual(["temperature"]);
    expect(device.status(2000)).toBe("online");
  });

  it("is stale when it calls itself online and is overdue", () => {
    const fleet = fleetOf(
      ["sensors/k1/meta", META],
      ["sensors/k1/status", "online"],
      ["sensors/k1/state", { temperature: 1 }, 1_000],
    );
    expect(get(fleet, "k1").status(30_000)).toBe("online");
    expect(get(fleet, "k1").status(40_000)).toBe("stale");
  });

  it("may sleep for as long as it usually does", () => {
    const fleet = fleetOf(["sensors/k1/meta", { interval: 3600 }], ["sensors/k1/status", "sleeping"]);
    fleet.note({ topic: "sensors/k1/state", payload: { temperature: 1 }, time: 0 });
    expect(get(fleet, "k1").status(3_600_000)).toBe("sleeping");
    expect(get(fleet, "k1").status(4 * 3_600_000)).toBe("stale");
  });

  it("says unknown instead of guessing", () => {
    const fleet = fleetOf(["sensors/k1/meta", META]);
    expect(get(fleet, "k1").status(1e12)).toBe("unknown");
    // a retained "online" may be of last year
    fleet.note({ topic: "sensors/k1/status", payload: "online", time: 1000 });
    expect(get(fleet, "k1").status(1000)).toBe("unknown");
  });

  it("isn't slower than it is because messages were left out on the way", () => {
    const fleet = new Fleet();
    for (let index = 0; index < 6; index++)
      fleet.note({ topic: "sensors/k1/state", payload: { t: 1 }, time: index * 5000, skipped: 4 });
    expect(get(fleet, "k1").rhythm.interval).toBe(1000);
  });

  it("keeps its last readings when a payload is broken, and says so", () => {
    const fleet = fleetOf(["sensors/k1/state", { temperature: 20 }], ["sensors/k1/state", "{broken"]);
    const device = get(fleet, "k1");
    expect(device.readings.get("temperature")).toBe(20);
    expect(device.broken).toBe(1);
    expect(device.lastProblem).toMatch(/JSON/);
  });

  it("reads a payload that is a number, a state or a list of them, and no base64 as one", () => {
    const fleet = fleetOf(
      ["sensors/a/state", "21.5 °C"],
      ["sensors/b/state", [{ n: "t", v: 4 }]],
      ["sensors/c/state", "ON"],
      ["sensors/d/state", { contact: "closed", tempc: "19.2" }],
    );
    fleet.note({ topic: "sensors/e/state", payload: "1234", encoding: "base64", time: 1 });
    const shown = (id: string) => get(fleet, id).shown();
    expect([shown("a"), shown("b"), shown("c")]).toEqual([[["", 21.5]], [["[0].v", 4]], [["", 1]]]);
    expect(shown("d")).toEqual([
      ["contact", 0],
      ["tempc", 19.2],
    ]);
    expect(shown("e")).toEqual([]);
    expect([..."abcde"].map((id) => get(fleet, id).broken)).toEqual([0, 0, 0, 0, 1]);
  });

  it("isn't made by an emptied retained topic, and survives any meta", () => {
    const fleet = fleetOf(
      ["sensors/gone/meta", ""],
      ["sensors/x/meta", [1, 2]],
      ["sensors/x/meta", { fields: "no", interval: -1 }],
    );
    expect([...fleet.devices.keys()]).toEqual(["x"]);
    expect(get(fleet, "x").rhythm.interval).toBeNull();
  });

  it("writes a field with the same decimals on every device, at most two", () => {
    const fleet = fleetOf(["sensors/a/state", { t: 20.125, h: 40 }], ["sensors/b/state", { t: 21, h: 41 }]);
    expect([fleet.decimals.get("t"), fleet.decimals.get("h")]).toEqual([2, 0]);
  });

  it("is only what sensors/<id>/… says", () => {
    expect(new Fleet().note({ topic: "sensors/a/b/state", payload: 1, time: 1 })).toBe(false);
  });
});

describe("trends", () => {
  it("join history and what came live meanwhile without doubling", () => {
    const fleet = fleetOf(["sensors/a/state", { temperature: 3 }, 3000], ["sensors/a/state", { temperature: 4 }, 4000]);
    const device = get(fleet, "a");
    // each a column of its own; the message at 3000 is in the answer to what was asked at 3500
    const columns = { start: 500, step: 1000, level: "raw", min: [], max: [], last: [] };
    fleet.fillTrend(device, "temperature", { ...columns, mean: [1, 2, 3], count: [1, 1, 1] }, 3500);
    const trend = device.trend?.series;
    expect(Array.from({ length: trend?.length ?? 0 }, (_, index) => trend?.value(index))).toEqual([1, 2, 3, 4]);
  });
  it("start again when another field is chosen", () => {
    const fleet = fleetOf(["sensors/a/state", { temperature: 3, humidity: 40 }]);
    fleet.setTrendField("humidity");
    expect(get(fleet, "a").trend).toBeNull();
    fleet.note({ topic: "sensors/a/state", payload: { temperature: 3, humidity: 41 }, time: 2000 });
    expect(get(fleet, "a").trend?.series.lastValue).toBe(41);
  });
});

describe("the list", () => {
  const fleet = fleetOf(
    ["sensors/b/state", { battery: 50, temperature: 1 }, 1000],
    ["sensors/a10/state", { temperature: 1 }, 2000],
    ["sensors/a9/state", { battery: 5, temperature: 1 }, 3000],
    ["sensors/a9/status", "offline"],
  );
  const ids = (changes: Partial<Query>) =>
    listDevices(fleet, { ...query, ...changes }, 3000).rows.map((row) => row.device.id);

  it("sorts, and puts the unknown last in both directions", () => {
    expect(ids({})).toEqual(["a9", "a10", "b"]);
    expect(ids({ descending: true })).toEqual(["b", "a10", "a9"]);
    expect(ids({ sort: "battery" })).toEqual(["a9", "b", "a10"]);
    expect(ids({ sort: "battery", descending: true })).toEqual(["b", "a9", "a10"]);
    expect(ids({ sort: "status" })[0]).toBe("a9");
    expect(ids({ sort: "seen", descending: true })).toEqual(["b", "a10", "a9"]);
  });
  it("filters by status and words, and still counts every status", () => {
    expect(ids({ status: "offline" })).toEqual(["a9"]);
    expect(ids({ text: "A1" })).toEqual(["a10"]);
    expect(listDevices(fleet, { ...query, status: "offline" }, 3000).counts).toMatchObject({ online: 2, offline: 1 });
  });
});

it("draws signal as bars", () => expect([-40, -60, -70, -80, -95].map(signalBars)).toEqual([4, 3, 2, 1, 0]));

import { describe, expect, it } from "vitest";
import {
  type Boards,
  brokerProblem,
  commandFor,
  freshKey,
  freshSensor,
  holderOf,
  openSlot,
  partSettings,
  settingsOf,
  unitOf,
  withPin,
} from "../src/core/boards.ts";

const boards: Boards = {
  version: "1.0.0",
  chips: {
    ESP32: { digital: [0, 4, 5, 21, 22], analogue: [34, 35], doubts: { 0: "strapping" }, boot: 0, i2c: [22, 21] },
    "ESP32-C5": { digital: [4, 8], analogue: [1], doubts: {}, boot: 28, i2c: null },
  },
  drivers: {
    adc: { pins: { pin: "analogue" }, choices: {}, is_named: true, measures: [], model: "ADC" },
    battery: {
      pins: { pin: "analogue" },
      choices: { chemistry: ["li-ion", "nimh"] },
      is_named: false,
      measures: [],
      model: "battery",
    },
    bme280: {
      pins: { scl: "digital", sda: "digital" },
      choices: {},
      is_named: false,
      measures: ["temperature"],
      model: "BME280",
    },
    dht22: { pins: { pin: "digital" }, choices: {}, is_named: false, measures: ["temperature"], model: "DHT22" },
    fake: { pins: {}, choices: {}, is_named: false, measures: [], model: "no sensor" },
    pms5003: {
      pins: { rx: "digital", tx: "digital" },
      choices: {},
      is_named: false,
      measures: ["pm25"],
      model: "PMS5003",
    },
  },
  outputs: { relay: { pins: { pin: "digital" }, choices: {}, is_named: true, measures: [], model: "relay" } },
  units: { temperature: "°C", voltage: "V" },
  delivered: "the broker has the first reading: ",
  settings_command: 160,
  piece_bytes: 200,
};

describe("a fresh sensor", () => {
  it("has the chip's usual bus, or a plain pin that nobody has", () => {
    const bus = freshSensor(boards, "ESP32", "bme280", []);
    expect(bus.pins).toEqual({ scl: 22, sda: 21 });
    const data = freshSensor(boards, "ESP32", "dht22", [bus]);
    expect(data.pins).toEqual({ pin: 4 });
    expect(freshSensor(boards, "ESP32", "dht22", [bus, data]).pins).toEqual({ pin: 5 });
    expect(freshSensor(boards, "ESP32", "adc", []).pins).toEqual({ pin: 34 });
    expect(freshSensor(boards, "ESP32", "battery", []).pins).toEqual({ pin: 34 });
    expect(freshSensor(boards, "ESP32", "pms5003", [bus]).pins).toEqual({ rx: 4, tx: 5 });
  });
  it("leaves open what the chip has no custom for", () => {
    const sensors = [freshSensor(boards, "ESP32-C5", "bme280", [])];
    expect(sensors[0]?.pins).toEqual({ scl: null, sda: null });
    expect(openSlot(boards, "ESP32-C5", sensors)).toEqual({ sensor: 0, option: "scl" });
  });
});

describe("pins", () => {
  const bus = freshSensor(boards, "ESP32", "bme280", []);
  it("of a bus are shared wire by wire, and of nothing else", () => {
    const sensors = [bus, bus];
    expect(holderOf(sensors, { sensor: 1, option: "scl" }, 22)).toBeNull();
    expect(holderOf(sensors, { sensor: 1, option: "sda" }, 22)).toEqual({ sensor: 0, option: "scl" });
    expect(openSlot(boards, "ESP32", sensors)).toBeNull();
    const crossed = withPin(sensors, { sensor: 1, option: "sda" }, 22);
    expect(openSlot(boards, "ESP32", crossed)).not.toBeNull();
  });
  it("are to be chosen anew on a chip that lacks them", () => {
    expect(openSlot(boards, "ESP32-C5", [bus])).toEqual({ sensor: 0, option: "scl" });
  });
});

describe("what goes to the board", () => {
  const wishes = {
    name: " Kitchen ",
    interval: 30,
    battery: true,
    sensors: [freshSensor(boards, "ESP32", "adc", []), freshSensor(boards, "ESP32", "fake", [])],
    broker: { url: " mqtt://192.168.1.10 ", username: "", password: "left over" },
  };
  it("says what was chosen, and no password without a user", () => {
    expect(settingsOf(wishes)).toEqual({
      name: "Kitchen",
      interval: 30,
      profile: "battery",
      sensors: [{ driver: "adc", pin: 34, field: "voltage" }, { driver: "fake" }],
      mqtt: { url: "mqtt://192.168.1.10" },
    });
    expect(partSettings([], false)).toEqual([]);
  });
  it("keeps outputs apart from sensors, and each has a name of its own", () => {
    const battery = freshSensor(boards, "ESP32", "battery", []);
    const first = freshSensor(boards, "ESP32", "relay", [battery]);
    const second = freshSensor(boards, "ESP32", "relay", [battery, first]);
    const chosen = { ...wishes, sensors: [first, battery, second] };
    expect(settingsOf(chosen)).toMatchObject({
      sensors: [{ driver: "battery", pin: 34, chemistry: "li-ion" }],
      outputs: [
        { output: "relay", pin: 4, name: "relay" },
        { output: "relay", pin: 5, name: "relay_2" },
      ],
    });
    expect(settingsOf(wishes)).not.toHaveProperty("outputs");
    expect(commandFor(chosen, "ESP32", "x.bin")).toContain(
      "--sensor battery:pin=34,chemistry=li-ion --output relay:pin=4,name=relay --output relay:pin=5,name=relay_2",
    );
  });
  it("is the same in a terminal, quoted and without passwords", () => {
    const broker = { url: "mqtts://h", username: "it's me", password: "secret" };
    expect(commandFor({ ...wishes, broker }, "ESP32", "x.bin")).toBe(
      "sensors-flash --chip ESP32 --firmware x.bin --wifi SSID --mqtt mqtts://h --mqtt-username 'it'\\''s me' " +
        "--sensor adc:pin=34,field=voltage --sensor fake --interval 30 --battery --name Kitchen",
    );
  });
});

describe("a broker's address", () => {
  it.each([
    ["mqtt://192.168.1.10", null],
    ["mqtts://broker.example:8883/", null],
    ["", "empty"],
    ["192.168.1.10", "form"],
    ["mqtt://user:word@h", "form"],
    ["mqtt://localhost", "itself"],
    ["mqtt://127.0.0.1:1883", "itself"],
    ["mqtt://[::1]", "itself"],
  ])("%s: %s", (url, problem) => expect(brokerProblem(url)).toBe(problem));
});

describe("a unit", () => {
  const meta = { fields: { temperature: { unit: "°F" }, contact: null, count: {} } };
  it("is what the board says, and until then what its program's table has", () => {
    expect(unitOf(boards, meta, "temperature")).toBe("°F");
    expect(unitOf(boards, meta, "count")).toBe("");
    expect(unitOf(boards, meta, "voltage")).toBe("");
    expect(unitOf(boards, null, "voltage")).toBe("V");
    expect(unitOf(boards, null, "temperature_2")).toBe("°C");
    expect(unitOf(boards, null, "contact")).toBe("");
  });
});

describe("a key for updates", () => {
  it("has 64 hexadecimal digits, and is another one each time", () => {
    const keys = Array.from({ length: 20 }, freshKey);
    expect(keys.every((key) => /^[0-9a-f]{64}$/.test(key))).toBe(true);
    expect(new Set(keys).size).toBe(20);
  });
});

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Field, parsePath, pathInto, type Step } from "../src/core/paths.ts";
import {
  defaultFields,
  eachNumber,
  fieldLabel,
  fieldRank,
  firstNumber,
  isPartOfPosition,
  KNOWN_UNITS,
  numberInText,
  oneLine,
  sortFields,
  summary,
  unitIn,
} from "../src/core/values.ts";

function numbers(payload: unknown): Record<string, number> {
  const found: Record<string, number> = {};
  eachNumber(payload, (field, value) => {
    found[field] = value;
  });
  return found;
}

interface Table {
  paths: { text: Field; steps: Step[]; written?: Field }[];
  refused: string[];
  units: string[];
  payloads: { payload: string; offered: Record<Field, number>; first: Field | null }[];
}

/** The tables that the tests of the gateway read, too. */
function tableOf<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../../../tests/${name}.json`, import.meta.url).pathname, "utf8")) as T;
}

const table = tableOf<Table>("paths");

/** A payload as it comes in a message of the gateway. */
function payloadOf(payload: string): unknown {
  try {
    return JSON.parse(payload);
  } catch {
    return payload;
  }
}

describe("what the gateway takes as well", () => {
  it.each(table.paths)("reads and writes the path $text", ({ text, steps, written }) => {
    expect(parsePath(text)).toEqual(steps);
    expect(steps.reduce<Field>(pathInto, "")).toBe(written ?? text);
  });
  it.each(table.refused)("reads no path in %j", (text) => expect(parsePath(text)).toBeNull());
  it("knows the same units", () => expect([...KNOWN_UNITS].sort()).toEqual([...table.units].sort()));
  it.each(table.payloads)("finds the numbers of $payload", ({ payload, offered, first }) => {
    expect(numbers(payloadOf(payload))).toEqual(offered);
    const best = firstNumber(payloadOf(payload));
    expect(best !== null && fieldRank(best) < 500 ? best : null).toBe(first);
  });
  it.each(tableOf<{ dialect: string; topic: string; payload: string; offered: Field[] }[]>("offered"))(
    "offers of $dialect, $topic, what the gateway takes",
    ({ payload, offered }) => expect(Object.keys(numbers(payloadOf(payload)))).toEqual(offered),
  );
});

describe("numbers in payloads", () => {
  it("shows a name as it is", () => expect(fieldLabel("SDS0X1.PM2\\.5")).toBe("SDS0X1.PM2.5"));
  it("finds a plain number", () => expect(numbers(21.5)).toEqual({ "": 21.5 }));
  it("finds a number in text, with or without a unit", () => {
    expect(numbers("21.5")).toEqual({ "": 21.5 });
    expect(numbers(" 21.5 °C ")).toEqual({ "": 21.5 });
    expect(numbers("-3e2")).toEqual({ "": -300 });
  });
  it.each(["12:30", "2026-05-04", "1.2.3.4", "hello", "", "5 out of 6"])("sees no number in %j", (text) =>
    expect(numberInText(text)).toBeNull(),
  );
  it("knows the unit that stands behind one", () => {
    const payload = { flow: "41.5 °C", list: ["45%"], v: "5 V", plain: "7", many: 3 };
    const fields = ["flow", "list[0]", "v", "plain", "many", "gone.far", ""];
    expect(fields.map((field) => unitIn(payload, field))).toEqual(["°C", "%", "V", "", "", "", ""]);
    expect(unitIn("12 zones", "")).toBe("zones");
  });
  it("takes on and off as 1 and 0", () => {
    expect(numbers("ON")).toEqual({ "": 1 });
    expect(numbers({ on: true })).toEqual({ on: 1 });
  });
  it("finds nested fields and short arrays", () => {
    expect(numbers({ a: { b: [1, { c: "2" }] }, id: "4f", n: null })).toEqual({ "a.b[0]": 1, "a.b[1].c": 2 });
  });
  it("survives any shape", () => {
    expect(numbers(null)).toEqual({});
    expect(Object.keys(numbers(Array.from({ length: 5000 }, (_, index) => index)))).toHaveLength(16);
    let deep: unknown = 1;
    for (let level = 0; level < 500; level++) deep = { deep };
    expect(numbers(deep)).toEqual({});
    const wide = Object.fromEntries(Array.from({ length: 5000 }, (_, index) => [`k${index}`, index]));
    expect(Object.keys(numbers(wide))).toHaveLength(64);
  });
});

describe("fields", () => {
  it("offers what people look for first and bookkeeping last", () => {
    expect(sortFields(["seq", "battery", "zeta", "humidity", "ts", "temperature"])).toEqual([
      "temperature",
      "humidity",
      "zeta",
      "battery",
      "seq",
      "ts",
    ]);
  });
  it("draws no numbers of a position by itself: its track is shown", () => {
    expect(defaultFields(sortFields(["lat", "lon", "acc", "tst", "battery"]), 1)).toEqual([]);
    expect(defaultFields(sortFields(["where.latitude", "where.longitude", "speed"]), 1)).toEqual(["speed"]);
    expect(defaultFields(sortFields(["geometry.coordinates[0]", "geometry.coordinates[1]"]), 1)).toEqual([]);
    expect(defaultFields(["lat"], 1)).toEqual(["lat"]);
    expect(["lat", "a.Longitude", "coordinates[1]", "plate"].map(isPartOfPosition)).toEqual([true, true, true, false]);
  });
  it("names them", () => {
    expect(fieldLabel("signal_strength")).toBe("Signal strength");
    expect(fieldLabel("")).toBe("value");
    expect(["co2", "Pm25", "tvoc", "rssi", "pH"].map(fieldLabel)).toEqual(["CO₂", "PM2.5", "TVOC", "Signal", "pH"]);
  });
});

describe("one line", () => {
  it("cuts long payloads and folds white space", () => {
    expect(oneLine("a\n  b")).toBe("a b");
    expect(oneLine([1, "a"])).toBe('[1,"a"]');
    expect(oneLine(null)).toBe("null");
    expect(oneLine("x".repeat(500), 10)).toBe("xxxxxxxxx…");
  });
  it("says in words what has no line", () => {
    expect(summary("", undefined, 9)).toBe("(empty)");
    expect(summary("AA==", "base64", 9)).toBe("(binary)");
    expect(summary(false, undefined, 9)).toBe("false");
  });
  it("says readings before bookkeeping", () => {
    expect(oneLine({ ts: 1.5, seq: 2, temperature: 21.5, door: "open" })).toBe(
      "temperature 21.5, door open, ts 1.5, seq 2",
    );
  });
});

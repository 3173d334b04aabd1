import { describe, expect, it } from "vitest";
import { boundsOf, type Command, isOn, payloadOf } from "../src/core/commands.ts";

const command = (more: Partial<Command>): Command => ({ id: "x", name: "X", kind: "text", topic: "a/set", ...more });

describe("what a device is told", () => {
  it("is the payload of the choice, and nothing for what is no choice", () => {
    const lamp = command({ kind: "switch", payloads: { on: '{"state":"ON"}', off: "" } });
    expect([payloadOf(lamp, "on"), payloadOf(lamp, "off")]).toEqual(['{"state":"ON"}', ""]);
    expect([payloadOf(lamp, "toggle"), payloadOf(lamp, "constructor")]).toEqual([null, null]);
  });
  it("is a number as it was typed, between what stands around it, within its bounds", () => {
    const level = command({ kind: "number", before: '{"level":', after: "}", min: 0, max: 254 });
    expect([payloadOf(level, "1.50"), payloadOf(level, "254")]).toEqual(['{"level":1.50}', '{"level":254}']);
    for (const wrong of ["255", "-1", "", " ", "many", "Infinity"]) expect(payloadOf(level, wrong)).toBeNull();
  });
  it("is a text, quoted where it stands in JSON", () => {
    expect(payloadOf(command({ before: '{"t":', after: "}", json: true }), 'a"b')).toBe('{"t":"a\\"b"}');
    expect(payloadOf(command({ before: "", after: "" }), 'a"b')).toBe('a"b');
  });
  it("is nothing where the announcement can't be followed", () => {
    expect(payloadOf(command({ problem: "a loop" }), "x")).toBeNull();
    expect(payloadOf(command({}), "x")).toBeNull();
  });
});

describe("a control", () => {
  it("says what a number may be", () => {
    expect(boundsOf(command({ min: 5, max: 30, unit: "°C" }))).toBe("5 to 30 °C");
    expect([boundsOf(command({ min: 5 })), boundsOf(command({ max: 3, unit: "s" }))]).toEqual(["from 5", "up to 3 s"]);
    expect([boundsOf(command({})), boundsOf(command({ unit: "s" }))]).toEqual(["", "s"]);
  });
  it("knows whether a switch is on by the device's own words", () => {
    const relay = command({ kind: "switch", payloads: { on: "100", off: "0" } });
    expect(["100", "0", true, "ON", "off", 1].map((value) => isOn(relay, value))).toEqual([
      true,
      false,
      true,
      true,
      false,
      true,
    ]);
    expect([null, undefined, "", "dimmed"].map((value) => isOn(relay, value))).toEqual([null, null, null, null]);
  });
});

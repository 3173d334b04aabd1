import { describe, expect, it } from "vitest";
import { eachText, States } from "../src/core/states.ts";
import { LiveStore, offeredFields } from "../src/core/store.ts";

const texts = (payload: unknown) => {
  const found: string[] = [];
  eachText(payload, (field, text) => found.push(`${field}=${text}`));
  return found;
};

describe("texts in a payload", () => {
  it("are short words, wherever they stand; no clocks, dates, addresses and messages", () => {
    expect(texts("sleeping")).toEqual(["=sleeping"]);
    expect(texts({ mode: "heat", valve: { state: "open" }, at: "2026-05-04T10:00:00Z", ip: "10.0.0.7", n: 4 })).toEqual(
      ["mode=heat", "valve.state=open"],
    );
    expect(texts({ _type: "location", tid: "ph", conn: "w", at: { _ID: "a" } })).toEqual(["conn=w"]);
    expect(texts({ error: "x".repeat(41), empty: "", url: "a/b" })).toEqual([]);
  });
});

describe("states", () => {
  const states = new States("t", "mode");
  for (const [time, state] of [
    [10, "heat"],
    [20, "heat"],
    [30, "sleep"],
    [25, "late"],
    [50, "heat"],
  ] as const) {
    states.note(time, state);
  }
  it("begin before what was heard where history has what came first and last in each stretch", () => {
    const past = { start: 0, step: 4, first: ["sleep", null, "heat", "sleep"], last: ["sleep", null, "off", "sleep"] };
    expect(states.behind(past).between(0, 100)).toEqual([
      { from: 0, to: 8, state: "sleep" },
      { from: 8, to: 9, state: "heat" },
      { from: 9, to: 10, state: "off" },
      { from: 10, to: 30, state: "heat" },
      { from: 30, to: 50, state: "sleep" },
      { from: 50, to: null, state: "heat" },
    ]);
    expect(states.behind(past).lastTime).toBe(states.lastTime);
    expect(states.behind({ ...past, start: 10 }).between(0, 100)).toEqual(states.between(0, 100));
    const begun = new States("t", "mode").behind(past);
    expect(begun.at(3)).toBe("sleep");
  });
  it("last until another one comes", () => {
    expect(states.between(0, 100)).toEqual([
      { from: 10, to: 30, state: "heat" },
      { from: 30, to: 50, state: "sleep" },
      { from: 50, to: null, state: "heat" },
    ]);
    expect(states.between(35, 40)).toEqual([{ from: 35, to: null, state: "sleep" }]);
    expect([5, 10, 49, 50].map((time) => states.at(time))).toEqual([null, "heat", "sleep", "heat"]);
  });
  it("are few, and not only numbers in words", () => {
    expect(states.isState).toBe(true);
    const onOff = new States("t", "");
    for (const state of ["on", "off"]) onOff.note(1, state);
    expect(onOff.isState).toBe(false);
    const names = new States("t", "");
    for (let index = 0; index < 20; index++) names.note(index, `name ${index}`);
    expect(names.isState).toBe(false);
  });
  it("are bounded, and what is paused doesn't change", () => {
    const many = new States("t", "");
    for (let index = 0; index < 10_000; index++) many.note(index, index % 2 ? "a" : "b");
    const held = many.snapshot();
    many.note(20_000, "c");
    expect(many.between(0, 1e9).length).toBeLessThanOrEqual(2000);
    expect(held.at(30_000)).toBe("a");
  });
});

describe("a live view's store", () => {
  it("draws no line of a field that says more than on and off: sleeping is not 1", () => {
    const store = new LiveStore();
    let seq = 0;
    const note = (topic: string, payload: unknown) => store.note({ topic, payload, time: ++seq, seq });
    for (const payload of ["online", "sleeping", "online"]) note("s/a/status", payload);
    note("s/b/contact", "open");
    expect(store.states.map(({ topic, field }) => `${topic} ${field}`)).toEqual(["s/a/status "]);
    expect(store.isStated("s/a/status", "")).toBe(true);
    expect(store.isStated("s/b/contact", "")).toBe(false);
    expect(offeredFields(store)).toEqual([""]);
    expect(store.snapshot().states).toHaveLength(1);
    // a number that isn't there for a while
    for (const payload of ["unavailable", "21.5", "unavailable"]) note("s/c/t", payload);
    expect(store.isStated("s/c/t", "")).toBe(false);
  });
});

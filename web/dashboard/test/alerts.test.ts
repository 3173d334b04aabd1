import { afterEach, describe, expect, it } from "vitest";
import { type Alert, firingOf, newlyFiring, readAlerts, titleWith } from "../src/core/alerts.ts";
import { de } from "../src/core/de.ts";
import { speak } from "../src/core/words.ts";

afterEach(() => speak({}));

const alert = (name: string, state: Alert["state"], firing = 0, since: number | null = null): Alert => ({
  name,
  state,
  since,
  firing,
  summary: "",
  topic: "",
});

describe("readAlerts", () => {
  it("reads what the gateway tells", () => {
    const told = { name: "hot", state: "firing", since: 5, firing: 2, summary: "31 °C", topic: "s/a", topics: [] };
    expect(readAlerts({ alerts: [told] })).toEqual([
      { name: "hot", state: "firing", since: 5, firing: 2, summary: "31 °C", topic: "s/a" },
    ]);
    expect(readAlerts({ alerts: [{ name: "hot", state: "ok", since: null }] })).toEqual([alert("hot", "ok")]);
  });

  it("words what the gateway has worded, and leaves what people wrote", () => {
    const summary = (entry: object) =>
      readAlerts({ alerts: [{ name: "a", state: "firing", since: 5, firing: 1, topic: "s/a", ...entry }] })[0]?.summary;
    const silent = { reason: "silent", silent: "10m", summary: "s/a: silent for 10m" };
    const offline = { reason: "offline", value: "Attic", summary: "Attic is offline (s/a) and 2 more", firing: 3 };
    const own = { summary: "too hot: silent for 10m" };
    const many = { summary: "too hot and 2 more", firing: 3 };
    for (const entry of [silent, offline, own, many]) expect(summary(entry)).toBe(entry.summary);
    speak(de);
    expect(summary(silent)).toBe("s/a: seit 10m still");
    expect(summary(offline)).toBe("Attic ist offline (s/a) und 2 weitere");
    expect(summary(own)).toBe(own.summary);
    expect(summary(many)).toBe("too hot und 2 weitere");
    expect(summary({ summary: "you and 2 more", firing: 1 })).toBe("you and 2 more");
  });

  it("leaves out what is none", () => {
    for (const body of [null, 3, {}, { alerts: 3 }, { alerts: [null, 1, {}, { name: "a", state: "on" }] }])
      expect(readAlerts(body)).toEqual([]);
  });
});

it("has those that fire, the newest first", () => {
  const list = [alert("a", "firing", 1, 1), alert("b", "ok"), alert("c", "firing", 1, 9), alert("d", "pending")];
  expect(firingOf(list).map((entry) => entry.name)).toEqual(["c", "a"]);
});

it("tells as news what began to fire, or fires for more topics", () => {
  const names = (before: Alert[], after: Alert[]) => newlyFiring(before, after).map((entry) => entry.name);
  expect(names([alert("a", "pending")], [alert("a", "firing", 1)])).toEqual(["a"]);
  expect(names([alert("a", "firing", 1)], [alert("a", "firing", 2)])).toEqual(["a"]);
  expect(names([alert("a", "firing", 2)], [alert("a", "firing", 1)])).toEqual([]);
  expect(names([alert("a", "firing", 1)], [alert("a", "ok")])).toEqual([]);
});

it("puts their number before the title", () => {
  expect(titleWith(0, "Devices")).toBe("Devices");
  expect(titleWith(2, "Devices")).toBe("(2) Devices");
});

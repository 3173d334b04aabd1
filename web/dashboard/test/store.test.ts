import { describe, expect, it } from "vitest";
import { seriesKey } from "../src/core/series.ts";
import {
  crosses,
  LIMITS,
  LiveStore,
  offeredFields,
  oldestTime,
  parseThreshold,
  thresholdText,
  withNewcomers,
} from "../src/core/store.ts";

let seq = 0;
const arrival = (topic: string, payload: unknown, time: number) => ({ topic, payload, time, seq: ++seq });

describe("a live view's store", () => {
  it("keeps a series for each topic and field", () => {
    const store = new LiveStore();
    store.note(arrival("a", { t: 1, h: 2 }, 1000));
    store.note(arrival("b", { t: 3 }, 1000));
    store.note(arrival("a", "broken {", 2000));
    expect([...store.fields]).toEqual([
      ["t", 2],
      ["h", 1],
    ]);
    expect(store.seriesOf("t").map((series) => series.topic)).toEqual(["a", "b"]);
    expect(store.received).toBe(3);
    expect(store.numberless).toBe(1);
  });

  it("notices topics that say one thing at a time", () => {
    const store = new LiveStore();
    store.note(arrival("a", { t: 1, h: 2 }, 1000));
    store.note(arrival("b", { t: 3 }, 1000));
    store.note(arrival("c", 7, 1000));
    store.note(arrival("a", "text", 2000));
    store.note(arrival("a", { t: 1, h: 2, new: 3 }, 3000));
    expect(store.hasParts).toBe(false);
    store.note(arrival("b", { h: 3 }, 2000));
    expect(store.hasParts).toBe(true);
  });

  it("ends a loss with the next news, not with a last value that is sent again", () => {
    const store = new LiveStore();
    store.note({ topic: "a", payload: 1, time: 1000, seq: 1 });
    store.note({ topic: "b", payload: 2, time: 9000, seq: 9 });
    store.noteGap("slow", 10, 12_000);
    store.note({ topic: "a", payload: 1, time: 1000, seq: 1 }, true);
    expect(store.gaps).toEqual([{ from: 9000, to: null, reason: "slow", lost: 10 }]);
    store.note({ topic: "b", payload: 3, time: 15_000, seq: 20 });
    expect(store.gaps).toEqual([{ from: 9000, to: 15_000, reason: "slow", lost: 10 }]);
    // and what is here is neither listed nor drawn twice
    expect(store.received).toBe(3);
    expect(store.series.get(seriesKey("a", ""))?.length).toBe(1);
  });
  it("ends a loss with the first message of a gateway's new life", () => {
    const store = new LiveStore();
    store.note({ topic: "a", payload: 1, time: 9000, seq: 50 });
    store.noteGap("epoch", null, 12_000);
    store.note({ topic: "a", payload: 1, time: 8000, seq: 1 }, true);
    expect(store.gaps).toEqual([{ from: 8000, to: 8000, reason: "epoch", lost: null }]);
  });
  it("adds losses up, those of gaps that are no longer drawn included", () => {
    const store = new LiveStore();
    for (let n = 0; n < 600; n++) store.noteGap("slow", 2, 1000);
    store.noteGap("evicted", null, 1000);
    const losses = [
      { reason: "slow", lost: 1200, gaps: 600 },
      { reason: "evicted", lost: null, gaps: 1 },
    ];
    expect(store.losses).toEqual(losses);
    expect(store.snapshot().losses).toEqual(losses);
  });
  it("offers fields that keep coming before those that came once", () => {
    const store = new LiveStore();
    store.note(arrival("s/status", "online", 500));
    store.note(arrival("s/meta", { temperature: { max: 85 } }, 1000));
    for (let index = 0; index < 20; index++)
      store.note(arrival("s/state", { humidity: 1, temperature: 2, seq: 3 }, index));
    expect(offeredFields(store)).toEqual(["temperature", "humidity", "seq", "", "temperature.max"]);
    expect(oldestTime(store)).toBe(0);
    expect(oldestTime(new LiveStore())).toBeNull();
    expect(offeredFields(new LiveStore())).toEqual([]);
  });

  it("doesn't take base64 for a number", () => {
    const store = new LiveStore();
    store.note({ ...arrival("a", "1234", 1000), encoding: "base64" });
    expect(store.series.size).toBe(0);
  });

  it("puts a loss between the messages around it", () => {
    const store = new LiveStore();
    store.note(arrival("a", 1, 1000));
    store.noteGap("slow", 7, 1500);
    expect(store.gaps).toEqual([{ from: 1000, to: null, reason: "slow", lost: 7 }]);
    store.note(arrival("a", 2, 3000));
    expect(store.gaps[0]).toMatchObject({ from: 1000, to: 3000 });
    expect([0, 1, 2].map((index) => store.row(index)?.kind)).toEqual(["message", "gap", "message"]);
  });

  it("gives a picture that nothing which comes later changes", () => {
    const store = new LiveStore({ ...LIMITS, rows: 5 });
    for (let index = 1; index <= 5; index++) store.note(arrival("a", index, index * 1000));
    store.noteGap("slow", 1, 5500);
    const held = store.snapshot();
    const newest = held.row(held.length - 2);
    for (let index = 6; index < 60; index++) store.note(arrival("a", index, index * 1000));
    expect(store.snapshot(57_000).received).toBe(57);
    store.note(arrival("a", -1, 500));
    const series = held.series.get(seriesKey("a", ""));
    expect(Array.from({ length: series?.length ?? 0 }, (_, index) => series?.value(index))).toEqual([1, 2, 3, 4, 5]);
    expect([held.length, held.received, held.gaps[0]?.to]).toEqual([5, 5, null]);
    expect(held.row(held.length - 2)).toBe(newest);
    expect(held.topics.get("a")?.last.payload).toBe(5);
    expect(store.series.get(seriesKey("a", ""))?.value(0)).toBe(-1);
  });

  it("says what it has no room to draw", () => {
    const store = new LiveStore({ ...LIMITS, series: 2, topics: 2 });
    for (const topic of ["a", "b", "c", "c"]) store.note(arrival(topic, 1, 1000));
    expect([store.unplotted, store.uncounted, store.topics.size]).toEqual([2, 2, 2]);
  });

  it("is bounded in rows and in characters, the oldest go first", () => {
    const store = new LiveStore({ rows: 10, characters: 5000, series: 5, texts: 5, topics: 3 });
    for (let index = 0; index < 10_000; index++) store.note(arrival(`t${index % 20}`, index, index));
    expect(store.length).toBe(10);
    const first = store.row(0);
    expect(first?.kind === "message" && first.message.n).toBe(9991);
    expect(store.topics.size).toBe(3);
    expect(store.series.size).toBe(5);
    expect(store.unplotted).toBeGreaterThan(0);
    store.note(arrival("t", "x".repeat(100_000), 1e6));
    expect(store.length).toBe(1);
  });

  it("can end where it was paused while it goes on", () => {
    const store = new LiveStore();
    for (let index = 0; index < 5; index++) store.note(arrival("a", index, index));
    store.noteGap("slow", null, 6);
    expect(store.lengthUntil(3)).toBe(3);
    expect(store.lengthUntil(5)).toBe(6);
  });

  it("finds the message before, of the same topic", () => {
    const store = new LiveStore();
    const one = store.note(arrival("a", 1, 1));
    store.note(arrival("b", 2, 2));
    const three = store.note(arrival("a", 3, 3));
    expect(store.before(three)).toBe(one);
    expect(store.before(one)).toBeNull();
  });
});

describe("thresholds", () => {
  it("are written into addresses and read back", () => {
    for (const text of ["temperature>30", "a.b<-1.5", ">0", "a<b>3"]) {
      const threshold = parseThreshold(text);
      expect(threshold && thresholdText(threshold)).toBe(text);
    }
    expect(parseThreshold("temperature=30")).toBeNull();
    expect(parseThreshold("temperature>")).toBeNull();
  });
  it("are crossed strictly", () => {
    expect(crosses({ field: "", above: true, value: 30 }, 30)).toBe(false);
    expect(crosses({ field: "", above: false, value: 30 }, 29)).toBe(true);
  });
});

describe("the order of topics", () => {
  it("leaves the known ones in their places and puts newcomers behind, by name", () => {
    expect(withNewcomers(["b"], ["s10", "b", "s2", "a"], false)).toEqual(["b", "a", "s2", "s10"]);
    expect(withNewcomers(["b"], ["b"], false)).toEqual(["b"]);
  });
  it("is that of names while everything is new", () => {
    expect(withNewcomers(["b"], ["a", "b"], true)).toEqual(["a", "b"]);
  });
});

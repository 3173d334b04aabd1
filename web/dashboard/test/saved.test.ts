import { describe, expect, it } from "vitest";
import { MAX_MARKS, type Mark, markOf, withMark } from "../src/core/marks.ts";
import { filtersOf, nameProblem, parseSaved, SAVED_LIMITS, savedOf, savedText } from "../src/core/saved.ts";

const VIEW = {
  title: "Kitchen",
  since: "6h",
  from: 1000,
  to: 2000,
  marks: "events/#",
  parts: [
    { kind: "chart", topic: "sensors/+/state", fields: ["temperature"] },
    { kind: "value", topic: "sensors/a/state", fields: ["humidity"], title: "Air" },
    { kind: "picture", topic: "cam/door" },
  ],
};

describe("a saved view", () => {
  it("is the same after it was written and read", () => {
    const view = savedOf(VIEW);
    expect(view?.parts).toHaveLength(3);
    expect(view?.window).toEqual({ from: 1000, to: 2000 });
    if (view) expect(parseSaved(savedText(view))).toEqual(view);
    expect(JSON.parse(view ? savedText(view) : "")).toEqual(VIEW);
  });
  it("is none of what is no view, and takes only what is right of what a stranger wrote", () => {
    for (const text of ["", "7", "[]", "{}", '{"parts":7}', "null", '{"parts":']) expect(parseSaved(text)).toBeNull();
    const odd = savedOf({
      title: 7,
      since: "tomorrow",
      from: 5,
      to: 1,
      marks: "a/#/b",
      parts: [
        null,
        { kind: "script", topic: "a" },
        { kind: "value", topic: "a/+" },
        { kind: "chart", topic: "" },
        { kind: "chart", topic: "a/#/b" },
        { kind: "chart", topic: "a/#", fields: [7, "t", null] },
      ],
    });
    expect(odd).toEqual({
      title: "",
      since: "1h",
      window: null,
      marks: "",
      parts: [{ kind: "chart", topic: "a/#", fields: ["t"], title: "" }],
    });
  });
  it("is bounded", () => {
    const parts = Array.from({ length: 100 }, (_, index) => ({
      kind: "value",
      topic: `a${index}`,
      fields: new Array(50).fill("x".repeat(999)),
    }));
    const view = savedOf({ title: "y".repeat(999), parts });
    expect(view?.parts).toHaveLength(SAVED_LIMITS.parts);
    expect(view?.parts[0]?.fields).toHaveLength(SAVED_LIMITS.fields);
    expect(view?.parts[0]?.fields[0]).toHaveLength(SAVED_LIMITS.text);
    expect(view?.title).toHaveLength(SAVED_LIMITS.text);
  });
  it("has each part once", () => {
    const part = { kind: "value", topic: "a" };
    expect(savedOf({ parts: [part, part, { ...part, title: "A" }] })?.parts).toHaveLength(1);
  });
  it("says what is read by who looks at it", () => {
    const view = savedOf(VIEW);
    expect(view && filtersOf(view)).toEqual(["sensors/+/state", "cam/door", "events/#"]);
  });
  it("has a name that is a level of a topic", () => {
    for (const name of ["Kitchen", "überall 2", "$x"]) expect(nameProblem(name)).toBeNull();
    for (const name of ["", "a/b", "#", "a+", "a\nb", "x".repeat(65)]) expect(nameProblem(name)).not.toBeNull();
  });
});

describe("marks", () => {
  it("are texts, or JSON with a text and perhaps a moment", () => {
    const at = (payload: unknown) => markOf({ payload, time: 5 });
    expect(at("door opened")).toEqual({ time: 5, text: "door opened" });
    expect(at({ text: "new firmware", time: 1_700_000_000_000 })).toEqual({
      time: 1_700_000_000_000,
      text: "new firmware",
    });
    expect(at({ message: "m", time: "2026-01-01T00:00:00Z" })?.time).toBe(Date.UTC(2026, 0, 1));
    expect(at({ state: "on" })).toEqual({ time: 5, text: "state on" });
    expect(at("")).toBeNull();
    expect(markOf({ payload: "AAEC", encoding: "base64", time: 5 })).toBeNull();
  });
  it("are in order, each once, the newest of too many", () => {
    let marks: readonly Mark[] = [];
    for (let time = 300; time > 0; time--) marks = withMark(marks, { time, text: "x" });
    marks = withMark(marks, { time: 300, text: "x" });
    expect(marks).toHaveLength(MAX_MARKS);
    expect(marks.at(-1)?.time).toBe(300);
    expect([...marks].sort((a, b) => a.time - b.time)).toEqual(marks);
  });
});

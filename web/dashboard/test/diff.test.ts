import { describe, expect, it } from "vitest";
import { changedPaths, formatJson, isMarked, removedPaths } from "../src/core/diff.ts";
import { bytesFromBase64, hexLines } from "../src/core/hex.ts";

const text = (value: unknown) =>
  formatJson(value).lines.map((line) => "  ".repeat(line.depth) + line.tokens.map((token) => token.text).join(""));

describe("formatted JSON", () => {
  it.each([[{ a: 1, b: { c: "x", d: [] } }], [[{ a: null }, true]], ["text"], [3], [null]])(
    "is what JSON.stringify writes: %j",
    (value) => expect(text(value).join("\n")).toBe(JSON.stringify(value, null, 2)),
  );
  it("keeps short lists of numbers on one line", () =>
    expect(text({ a: [1, 2] })).toEqual(["{", '  "a": [1, 2]', "}"]));
  it("marks numbers that were rounded when they were read", () =>
    expect(text(JSON.parse('{"a": 12345678901234567890, "b": [1, 9007199254740993]}'))).toEqual([
      "{",
      '  "a": ≈12345678901234567000,',
      '  "b": [1, ≈9007199254740992]',
      "}",
    ]));
  it("says how much it cut", () => {
    const { lines, cut } = formatJson(
      Array.from({ length: 100 }, () => "x"),
      10,
    );
    expect(lines).toHaveLength(10);
    expect(cut).toBe(92);
  });
});

describe("what changed", () => {
  it("names scalars, added and replaced values by pointer", () => {
    expect([...changedPaths({ a: 1, b: 2, o: {} }, { a: 1, b: 3, "c/d": { e: 1 }, o: 4 })]).toEqual([
      "/b",
      "/c~1d",
      "/c~1d/e",
      "/o",
    ]);
    expect(changedPaths({ a: [1, 2] }, { a: [1, 2] }).size).toBe(0);
    expect([...changedPaths(1, 2)]).toEqual([""]);
    expect(removedPaths({ a: 1, b: { c: 1 } }, { b: {} })).toEqual(["/a", "/b/c"]);
  });
  it("marks lines, not the brackets around them", () => {
    const before = { a: 1, list: [1, 2], o: { x: 1 } };
    const after = { a: 2, list: [1, 3], o: { x: 1 } };
    const changed = changedPaths(before, after);
    const marked = formatJson(after).lines.filter((line) => isMarked(line, changed));
    expect(marked.map((line) => line.path)).toEqual(["/a", "/list"]);
  });
});

describe("hex", () => {
  it("dumps bytes with their characters", () => {
    const { lines, cut } = hexLines(bytesFromBase64("SGkAfw=="));
    expect(lines).toHaveLength(1);
    expect(lines[0]?.hex.trim()).toBe("48 69 00 7f");
    expect(lines[0]?.text).toBe("Hi··");
    expect(cut).toBe(0);
  });
  it("cuts what is too long and says so", () => {
    const { lines, cut } = hexLines(new Uint8Array(100), 32);
    expect(lines.map((line) => line.offset)).toEqual(["0000", "0010"]);
    expect(cut).toBe(68);
  });
});

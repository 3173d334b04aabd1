import { expect, it } from "vitest";
import { excerpt, holdsAll, piecesOf, wordsOf } from "../src/core/search.ts";

it("finds words in a name or in the text that is made only where it is needed", () => {
  const words = wordsOf("  State HEAT ");
  expect(words).toEqual(["state", "heat"]);
  expect(holdsAll(words, "hall/state", () => '{"mode":"heating"}')).toBe(true);
  expect(holdsAll(words, "hall/state", () => "cooling")).toBe(false);
  const never = () => {
    throw new Error("not needed");
  };
  expect(holdsAll(words, "state/heat", never)).toBe(true);
});

it("cuts a text where words are found, the longest of those that begin together", () => {
  expect(piecesOf("Kitchen/state", ["kit", "kitchen", "e"])).toEqual([
    { text: "Kitchen", isFound: true },
    { text: "/stat", isFound: false },
    { text: "e", isFound: true },
  ]);
  expect(piecesOf("abc", [])).toEqual([{ text: "abc", isFound: false }]);
  expect(piecesOf("", ["a"])).toEqual([]);
});

it("shows the place of a word that the beginning lacks", () => {
  const text = `${"x".repeat(100)} needle ${"y".repeat(100)}`;
  expect(excerpt(text, "xxx", ["needle"], 40)).toMatch(/^…x{7} needle y+…$/);
  expect(excerpt(text, text, ["needle"], 40)).toBeNull();
  expect(excerpt(text, "xxx", ["other"], 40)).toBeNull();
  expect(excerpt("needle", "", ["needle"], 40)).toBe("needle");
});

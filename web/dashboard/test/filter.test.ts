import { describe, expect, it } from "vitest";
import * as filter from "../src/core/filter.ts";

describe("topic filters", () => {
  it.each(["#", "+", "a/+/b", "a/#", "/", "a//b", "$SYS/#"])("accepts %s", (text) =>
    expect(filter.filterProblem(text)).toBeNull(),
  );
  it.each(["", "a/#/b", "a#", "a+/b", "\0"])("explains what is wrong with %j", (text) =>
    expect(filter.filterProblem(text)).toMatch(/./),
  );
  it.each([
    ["#", "a/b", true],
    ["#", "$SYS/x", false],
    ["+/x", "$SYS/x", false],
    ["$SYS/#", "$SYS/x", true],
    ["a/#", "a", true],
    ["a/+", "a", false],
    ["a/+", "a/b/c", false],
    ["+", "", true],
  ])("%s against %s", (pattern, topic, expected) => expect(filter.matches(pattern, topic)).toBe(expected));
  it.each([
    ["sensors/#", "sensors/+/state", true],
    ["sensors/a/#", "sensors/+/x", false],
    ["sensors/a/#", "#", false],
    ["#", "$SYS/#", false],
    ["a/+", "a/#", false],
    ["a/+/#", "a/#", false],
  ])("%s covers %s: %s", (allowed, requested, expected) => expect(filter.covers(allowed, requested)).toBe(expected));
});

describe("what two filters share", () => {
  it.each([
    ["sensors/#", "sensors/+/meta", "sensors/+/meta"],
    ["sensors/kitchen/#", "sensors/+/meta", "sensors/kitchen/meta"],
    ["#", "a/+", "a/+"],
    ["+/b", "a/+", "a/b"],
    ["a/#", "a", "a"],
    ["a/#", "b/#", null],
    ["a/b", "a", null],
    ["#", "$SYS/#", null],
    ["a/+/#", "a/b/#", "a/b/#"],
  ])("%s and %s: %s", (one, other, shared) => {
    expect(filter.intersection(one, other)).toBe(shared);
    expect(filter.intersection(other, one)).toBe(shared);
  });
  it("keeps only what no other covers", () => {
    expect(filter.minimal(["a/b", "a/#", "a/b", "c"])).toEqual(["a/#", "c"]);
  });
});

describe("addresses", () => {
  it.each(["sensors/+/state", "#", "a b/ü/?x", "a//b", "/lead", "100%/x", "../../etc", "./a", "$SYS/#"])(
    "%s survives the way through an address",
    (text) => {
      const path = filter.filterToPath(text);
      const url = new URL(`topics/${path}`, "http://host/gw/");
      expect(url.pathname.startsWith("/gw/topics/")).toBe(true);
      expect(url.search + url.hash).toBe("");
      expect(filter.pathToFilter(url.pathname.slice("/gw/topics/".length))).toBe(text);
    },
  );
});

describe("naming series", () => {
  it("names them by the levels that differ", () => {
    expect(filter.distinctLevels(["s/a/state", "s/b/state"])).toEqual(["a", "b"]);
    expect(filter.distinctLevels(["s/a/x", "s/b/y"])).toEqual(["a/x", "b/y"]);
    expect(filter.distinctLevels(["only/one"])).toEqual(["only/one"]);
    // of another depth: no slashes without names
    expect(filter.distinctLevels(["a", "a/b/c/d/e/f"])).toEqual(["a", "b/c/d/e/f"]);
    expect(filter.distinctLevels(["h/x", "h/x/y/z", "h/q"])).toEqual(["x", "x/y/z", "q"]);
    expect(filter.distinctLevels(["a//b", "a//c", "//////"])).toEqual(["a/b", "a/c", "//////"]);
    expect(filter.distinctLevels(["a/b", "a/b/"])).toEqual(["a/b", "a/b/"]);
  });
});

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { de } from "../src/core/de.ts";
import { TOLD } from "../src/core/told.ts";
import { speak, t } from "../src/core/words.ts";

const SOURCES = join(import.meta.dirname, "../src");

/** What the code says in English: the first argument of each call of `t`, what `counted` counts, and what codes mean. */
function said(): Set<string> {
  const found = new Set<string>(TOLD);
  for (const name of readdirSync(SOURCES, { recursive: true, encoding: "utf8" })) {
    if (!/\.tsx?$/.test(name) || name.endsWith("words.ts")) continue;
    const code = readFileSync(join(SOURCES, name), "utf8");
    for (const [, text] of code.matchAll(/\bt\(\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)/g)) {
      if (text === undefined) continue;
      const inner = text.slice(1, -1).replaceAll("\\'", "'").replaceAll('\\"', '"');
      found.add(inner);
    }
    for (const [, one, many] of code.matchAll(/\bcounted\([^;]*?, "([^"]+)"(?:, "([^"]+)")?\)/g)) {
      found.add(String(one)).add(many ?? `${one}s`);
    }
  }
  return found;
}

/** What is for programs, for those who build the page, or for other programs to read. */
const PROGRAMS =
  /^(?:gateway sub|sensors-flash |GATEWAY_FLASH_|(?:index|flash)\.html has|soft reset$|key kept$|const live = |color-mix|\$\{field\}:)/;

const names = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort();

afterEach(() => speak({}));

describe("words", () => {
  it("are English where no other language is spoken, with values in their places", () => {
    expect(t("{done} of {count} cleared", { done: 1, count: "2" })).toBe("1 of 2 cleared");
    expect(t("no {such} name", { other: 1 })).toBe("no {such} name");
  });
  it("are those of a table, as far as that has them", () => {
    speak(de);
    expect(t("Devices")).toBe("Geräte");
    expect(t("{done} of {count} cleared", { done: 1, count: 2 })).toBe("1 von 2 gelöscht");
    expect(t("of no table")).toBe("of no table");
    expect(t("constructor")).toBe("constructor");
  });
  it("all have a German form, and no form is left over", () => {
    const english = said();
    expect([...english].filter((text) => !(text in de)).sort()).toEqual([]);
    expect(Object.keys(de).filter((text) => !english.has(text))).toEqual([]);
  });
  it("leave no sentence out", () => {
    const english = said();
    const left: string[] = [];
    for (const name of readdirSync(SOURCES, { recursive: true, encoding: "utf8" })) {
      if (!/\.tsx?$/.test(name) || name.endsWith("de.ts") || name.endsWith("core/values.ts")) continue;
      const code = readFileSync(join(SOURCES, name), "utf8")
        .replace(/\/\*[\s\S]*?\*\//g, "")
        .replace(/(^|\s)\/\/.*$/gm, "")
        .replace(/^import[\s\S]*?;$/gm, "")
        .replace(/\bclass=(?:"[^"]*"|\{.*)/g, "");
      for (const [found] of code.matchAll(/"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`/g)) {
        const text = found.slice(1, -1).replaceAll('\\"', '"');
        const isSentence = /\p{L}+ \p{Ll}{2,}|^\d+ \p{Ll}{4,}/u.test(text.replace(/\$\{[^}]*\}/g, "1"));
        if (isSentence && !english.has(text) && !PROGRAMS.test(text)) left.push(`${name}: ${text}`);
      }
    }
    expect(left).toEqual([]);
  });
  it("are no names of classes, parameters or keys", () => {
    for (const name of readdirSync(SOURCES, { recursive: true, encoding: "utf8" })) {
      if (!/\.tsx?$/.test(name)) continue;
      const code = readFileSync(join(SOURCES, name), "utf8");
      expect(
        code.match(/\b(?:class|key|id|type|name|role|for|value)=\{t\(.*|\b(?:get|getAll|has|set)\(t\(.*/g),
        name,
      ).toBeNull();
    }
  });
  it("keep the names of their values", () => {
    for (const [english, german] of Object.entries(de)) expect(names(german), english).toEqual(names(english));
  });
});

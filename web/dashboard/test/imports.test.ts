import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const SOURCE = fileURLToPath(new URL("../src/", import.meta.url));
/** `from "./x"`, `import "./x"`, `import("./x")` and the types of `typeof import("./x")`. */
const IMPORT = /(?:\bfrom\s*|\bimport\s*\(?\s*)"(\.[^"]+)"/g;

const modules = new Map(
  readdirSync(SOURCE, { recursive: true, encoding: "utf8" })
    .filter((path) => /\.tsx?$/.test(path))
    .map((path) => {
      const text = readFileSync(SOURCE + path, "utf8");
      return [path, [...text.matchAll(IMPORT)].map(([, target = ""]) => join(dirname(path), target))];
    }),
);

/** The first circle of imports, as a path that ends where it began; [] where there is none. */
function circle(): string[] {
  const done = new Set<string>();
  const walk = (path: string, way: string[]): string[] => {
    if (way.includes(path)) return [...way.slice(way.indexOf(path)), path];
    if (done.has(path)) return [];
    for (const target of modules.get(path) ?? []) {
      const found = walk(target, [...way, path]);
      if (found.length > 0) return found;
    }
    done.add(path);
    return [];
  };
  for (const path of modules.keys()) {
    const found = walk(path, []);
    if (found.length > 0) return found;
  }
  return [];
}

describe("imports", () => {
  it("are all found", () => {
    const targets = [...modules.values()].flat().filter((path) => !path.endsWith(".css"));
    expect(targets.length).toBeGreaterThan(100);
    expect(targets.filter((path) => !modules.has(path))).toEqual([]);
  });
  it("form no circle, types included", () => expect(circle()).toEqual([]));
  it("of core/ stay in core/: it is pure", () => {
    const core = [...modules].filter(([path]) => path.startsWith("core/"));
    expect(core.flatMap(([, targets]) => targets).filter((path) => !path.startsWith("core/"))).toEqual([]);
  });
});

describe("style sheets", () => {
  const listed = [...readFileSync(`${SOURCE}style.css`, "utf8").matchAll(/@import "\.\/([^"]+)"/g)].map(
    ([, path]) => path,
  );
  it("are all listed, once", () => {
    const sheets = readdirSync(SOURCE, { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith(".css"));
    expect([...listed].sort()).toEqual(sheets.filter((path) => path !== "style.css").sort());
  });
});

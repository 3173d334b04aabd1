/**
 * JSON as lines to read, with what changed marked.
 *
 * Paths are JSON pointers (RFC 6901), so that keys with dots don't collide.
 */

import { numberText } from "./format.ts";

type TokenKind = "key" | "string" | "number" | "literal" | "punctuation";

export interface Line {
  /** Levels of indentation. */
  depth: number;
  /** The pointer of the value that starts on this line. */
  path: string;
  tokens: { kind: TokenKind; text: string }[];
}

const escapeKey = (key: string) => key.replaceAll("~", "~0").replaceAll("/", "~1");

function isContainer(value: unknown): value is Record<string, unknown> | unknown[] {
  return value !== null && typeof value === "object";
}

/** The pointers of scalars (and of emptied or replaced containers) that are new or different in `after`. */
export function changedPaths(before: unknown, after: unknown): Set<string> {
  const changed = new Set<string>();
  const walk = (old: unknown, value: unknown, path: string): void => {
    if (isContainer(value) && isContainer(old) && Array.isArray(value) === Array.isArray(old)) {
      for (const [key, inner] of Object.entries(value)) {
        const at = `${path}/${escapeKey(key)}`;
        if (Object.hasOwn(old, key)) walk((old as Record<string, unknown>)[key], inner, at);
        else mark(inner, at);
      }
      return;
    }
    if (isContainer(value) || !Object.is(old, value)) mark(value, path);
  };
  const mark = (value: unknown, path: string): void => {
    changed.add(path);
    if (isContainer(value)) for (const [key, inner] of Object.entries(value)) mark(inner, `${path}/${escapeKey(key)}`);
  };
  walk(before, after, "");
  return changed;
}

/** The keys that `before` had and `after` has not, as pointers. */
export function removedPaths(before: unknown, after: unknown): string[] {
  const removed: string[] = [];
  const walk = (old: unknown, value: unknown, path: string): void => {
    if (!isContainer(old) || !isContainer(value) || Array.isArray(old) !== Array.isArray(value)) return;
    for (const [key, inner] of Object.entries(old)) {
      const at = `${path}/${escapeKey(key)}`;
      if (Object.hasOwn(value, key)) walk(inner, (value as Record<string, unknown>)[key], at);
      else removed.push(at);
    }
  };
  walk(before, after, "");
  return removed;
}

function scalarToken(value: unknown): { kind: TokenKind; text: string } {
  if (typeof value === "string") return { kind: "string", text: JSON.stringify(value) };
  if (typeof value === "number") return { kind: "number", text: numberText(value) };
  return { kind: "literal", text: String(value) };
}

/** A JSON value as indented lines; at most `limit`, and then `cut` says how many were left out. */
export function formatJson(value: unknown, limit = 2000): { lines: Line[]; cut: number } {
  const lines: Line[] = [];
  let cut = 0;
  const add = (line: Line) => {
    if (lines.length < limit) lines.push(line);
    else cut++;
  };
  const walk = (item: unknown, depth: number, path: string, key: string | null, comma: boolean): void => {
    const head: Line["tokens"] = [];
    if (key !== null) head.push({ kind: "key", text: JSON.stringify(key) }, { kind: "punctuation", text: ": " });
    const tail: Line["tokens"] = comma ? [{ kind: "punctuation", text: "," }] : [];
    if (!isContainer(item)) {
      add({ depth, path, tokens: [...head, scalarToken(item), ...tail] });
      return;
    }
    const entries = Object.entries(item);
    const [open, close] = Array.isArray(item) ? ["[", "]"] : ["{", "}"];
    const flat = Array.isArray(item) && entries.length <= 8 && item.every((inner) => typeof inner === "number");
    if (entries.length === 0 || flat) {
      const text = flat ? `[${item.map(numberText).join(", ")}]` : open + close;
      add({ depth, path, tokens: [...head, { kind: flat ? "number" : "punctuation", text }, ...tail] });
      return;
    }
    add({ depth, path, tokens: [...head, { kind: "punctuation", text: open }] });
    for (const [index, [inner, entry]] of entries.entries()) {
      const last = index === entries.length - 1;
      walk(entry, depth + 1, `${path}/${escapeKey(inner)}`, Array.isArray(item) ? null : inner, !last);
    }
    add({ depth, path, tokens: [{ kind: "punctuation", text: close }, ...tail] });
  };
  walk(value, 0, "", null, false);
  return { lines, cut };
}

/** Whether a line is to be marked: its own value changed, or (for arrays on one line) something in it did. */
export function isMarked(line: Line, changed: ReadonlySet<string>): boolean {
  if (changed.size === 0) return false;
  const opens = line.tokens.some((token) => token.kind === "punctuation" && /^[{[]$/.test(token.text));
  const closes = line.tokens[0]?.kind === "punctuation" && /^[}\]]$/.test(line.tokens[0].text);
  if (opens || closes) return false;
  if (changed.has(line.path)) return true;
  const text = line.tokens.find((token) => token.kind === "number")?.text;
  if (!text?.startsWith("[")) return false;
  for (const path of changed) if (path.startsWith(`${line.path}/`)) return true;
  return false;
}

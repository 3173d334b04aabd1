/**
 * A view that somebody put together: charts, values, pictures and tracks on one page, under a name.
 *
 * It is JSON, small enough for an address, and the same in an address and where it is kept. Whatever comes from there is
 * a stranger's: `parseSaved` takes what is right and bounded, and nothing else.
 */

import { filterProblem, isWildcard, minimal } from "./filter.ts";
import { parseSpan } from "./format.ts";
import { t } from "./words.ts";

export const KINDS = ["chart", "value", "picture"] as const;
export type Kind = (typeof KINDS)[number];

export interface Part {
  kind: Kind;
  /** A topic; of a chart a filter, too. */
  topic: string;
  /** Paths of what is drawn; none: what is looked for first. */
  fields: readonly string[];
  title: string;
}

export interface SavedView {
  title: string;
  /** How far back its charts go, such as "1h". */
  since: string;
  /** A window of its own in milliseconds since 1970; null: up to now. */
  window: { from: number; to: number } | null;
  /** The topic or filter that marks charts; "" for none. */
  marks: string;
  parts: readonly Part[];
}

export const SAVED_LIMITS = { parts: 24, fields: 12, text: 200, address: 6_000 };

export const EMPTY_VIEW: SavedView = { title: "", since: "1h", window: null, marks: "", parts: [] };

const record = (value: unknown): Record<string, unknown> | null =>
  value !== null && typeof value === "object" && !Array.isArray(value) ? (value as Record<string, unknown>) : null;

const words = (value: unknown, most = SAVED_LIMITS.text): string =>
  typeof value === "string" ? value.slice(0, most) : "";

/** A part as it may be shown; null where it has no topic. */
export function partOf(value: unknown): Part | null {
  const given = record(value);
  const kind = KINDS.find((each) => each === given?.kind);
  const topic = words(given?.topic, 2000);
  if (!kind || topic === "" || filterProblem(topic) !== null) return null;
  if (kind !== "chart" && isWildcard(topic)) return null;
  const fields = Array.isArray(given?.fields) ? given.fields.filter((field) => typeof field === "string") : [];
  return {
    kind,
    topic,
    fields: fields.slice(0, SAVED_LIMITS.fields).map((field) => words(field)),
    title: words(given?.title),
  };
}

/** Parts that show the same are one. */
const distinct = (parts: readonly Part[]): Part[] => [
  ...new Map(parts.map((part) => [JSON.stringify([part.kind, part.topic, part.fields]), part])).values(),
];

/** The view that a value describes; null where it is none. */
export function savedOf(value: unknown): SavedView | null {
  const given = record(value);
  if (given === null || !Array.isArray(given.parts)) return null;
  const since = words(given.since, 40);
  const [from, to] = [Number(given.from), Number(given.to)];
  const marks = words(given.marks, 2000);
  return {
    title: words(given.title),
    since: parseSpan(since) === null ? EMPTY_VIEW.since : since,
    window: from > 0 && to > from ? { from, to } : null,
    marks: marks !== "" && filterProblem(marks) === null ? marks : "",
    parts: distinct(given.parts.slice(0, SAVED_LIMITS.parts).flatMap((part) => partOf(part) ?? [])),
  };
}

/** The view in a text; null where it is none. */
export function parseSaved(text: string): SavedView | null {
  try {
    return savedOf(JSON.parse(text));
  } catch {
    return null;
  }
}

/** A view as it is kept and as it stands in addresses: what is empty is left out. */
export function savedText({ title, since, window, marks, parts }: SavedView): string {
  return JSON.stringify({
    ...(title === "" ? {} : { title }),
    since,
    ...(window ?? {}),
    ...(marks === "" ? {} : { marks }),
    parts: parts.map((part) => ({
      kind: part.kind,
      topic: part.topic,
      ...(part.fields.length > 0 ? { fields: part.fields } : {}),
      ...(part.title === "" ? {} : { title: part.title }),
    })),
  });
}

/** All that is read by who looks at a view. */
export function filtersOf({ marks, parts }: SavedView): string[] {
  return minimal([...parts.map(({ topic }) => topic), ...(marks === "" ? [] : [marks])]);
}

/** Why a view can't have that name, which is a level of a topic; null where it can. */
export function nameProblem(name: string): string | null {
  if (name === "") return t("A name is missing.");
  if (name.length > 64) return t("A name has at most 64 characters.");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: those are not allowed
  if (/[/+#\u0000-\u001f\u007f-\u009f]/.test(name)) return t("A name holds no / + # and no control characters.");
  return null;
}

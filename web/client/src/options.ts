import { failure } from "./events.js";
import type { Options } from "./types.js";

/** Seconds. A timer takes at most 2³¹ − 1 milliseconds; one that is to take longer takes none. */
const TIMES = [0.001, 2_147_483] as const;

/** From and to, both included, for what JSON and timers would take for something else. What is only told the gateway it checks. */
const RANGES = {
  silence: TIMES,
  timeout: TIMES,
  maxDelay: TIMES,
  maxHz: [0.001, Infinity],
  hiddenHz: [0, Infinity],
  deadband: [0, 1e300],
  buffer: [1, 1e9],
} as const;

/** Throws unless `isGood`. */
export function check(isGood: boolean, name: string, value: unknown, rule: string) {
  const shown = typeof value === "string" ? JSON.stringify(value) : value;
  if (!isGood) throw failure("bad_option", `${name} ${shown}: must be ${rule}`);
}

export function checkRanges(options: Options) {
  for (const [name, [least, most]] of Object.entries(RANGES)) {
    const value: unknown = options[name as keyof typeof RANGES];
    const isGood = value === undefined || (typeof value === "number" && value >= least && value <= most);
    check(isGood, name, value, `a number from ${least} to ${most}`);
  }
}

/** One topic filter or several, as a list. */
export function list(topics: string | readonly string[] = []) {
  const all = typeof topics === "string" ? [topics] : topics;
  const isGood = Array.isArray(all) && all.every((topic) => typeof topic === "string");
  check(isGood, "topics", topics, "a topic filter or a list of them");
  return [...all];
}

export function checkSince(since: string | undefined) {
  check(since === undefined || typeof since === "string", "since", since, "a text such as 10m");
}

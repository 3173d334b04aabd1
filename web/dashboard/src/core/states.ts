/**
 * Texts over time: what a device was doing, from when to when.
 *
 * A field whose texts are few and short has states ("heating", "sleeping"). Where some of them also count as numbers ("on",
 * "open"), as texts they say more: the field is then no line. Bounded in fields, states and changes.
 */

import type { TextColumns } from "./columns.ts";
import { pathInto } from "./paths.ts";
import { type Field, isBookkeeping, numberOfText } from "./values.ts";

const MAX_DEPTH = 6;
const MAX_FIELDS = 32;
/** Longer texts are messages; more different ones are names. */
const MAX_TEXT = 40;
const MAX_STATES = 16;
const KEPT = 2000;

/** A date, a clock, an address: texts that are no states. */
const NO_STATE = /^\d|[:/\\@]/;

/** Calls `found` for each short text of a payload that is no bookkeeping. */
export function eachText(payload: unknown, found: (field: Field, text: string) => void): void {
  let left = MAX_FIELDS;
  const walk = (value: unknown, path: Field, depth: number): void => {
    if (left <= 0) return;
    if (typeof value === "string") {
      if (value === "" || value.length > MAX_TEXT || NO_STATE.test(value)) return;
      left--;
      found(path, value);
    } else if (value !== null && typeof value === "object" && !Array.isArray(value) && depth < MAX_DEPTH) {
      for (const [key, inner] of Object.entries(value)) {
        if (key !== "" && !isBookkeeping(key)) walk(inner, pathInto(path, key), depth + 1);
      }
    }
  };
  walk(payload, "", 0);
}

interface Stretch {
  from: number;
  /** null: it still lasts. */
  to: number | null;
  state: string;
}

/** The states of one field of one topic. */
export class States {
  private times: number[] = [];
  private names: string[] = [];
  private readonly seen = new Set<string>();
  /** When it was heard last. */
  lastTime = 0;
  /** Whether a state came that isn't a number as well. */
  private isText = false;

  constructor(
    readonly topic: string,
    readonly field: Field,
  ) {}

  /** Whether its texts are states: few, and again and again the same. */
  get isState(): boolean {
    return this.isText && this.seen.size <= MAX_STATES;
  }

  note(time: number, state: string): void {
    if (this.seen.size <= MAX_STATES) this.seen.add(state);
    this.isText ||= numberOfText(state) === null;
    if (time < this.lastTime) return;
    this.lastTime = time;
    if (this.names[this.names.length - 1] === state) return;
    this.times.push(time);
    this.names.push(state);
    if (this.times.length > KEPT) {
      this.times = this.times.slice(KEPT / 4);
      this.names = this.names.slice(KEPT / 4);
    }
  }

  /** What it was in a window, cut at its ends. */
  between(from: number, to: number): Stretch[] {
    const found: Stretch[] = [];
    for (const [index, state] of this.names.entries()) {
      const begins = this.times[index] ?? 0;
      const ends = this.times[index + 1] ?? null;
      if (begins > to || (ends !== null && ends <= from)) continue;
      found.push({ from: Math.max(from, begins), to: ends === null || ends > to ? null : ends, state });
    }
    return found;
  }

  /** What it was at a moment; null before the first. */
  at(time: number): string | null {
    for (let index = this.times.length - 1; index >= 0; index--) {
      if ((this.times[index] ?? 0) <= time) return this.names[index] ?? null;
    }
    return null;
  }

  /** The same with what came before its first one: what was first and last in each stretch of time. */
  behind({ start, step, first, last }: TextColumns): States {
    const whole = new States(this.topic, this.field);
    const begins = this.times[0] ?? Number.POSITIVE_INFINITY;
    for (const [index, state] of first.entries()) {
      const from = start + index * step;
      if (from >= begins) break;
      if (state === null) continue;
      whole.note(from, state);
      const then = last[index] ?? state;
      // somewhere between: at the end, as the next stretch goes on with it
      if (then !== state) whole.note(Math.min(from + step, begins) - 1, then);
    }
    for (const [index, state] of this.names.entries()) whole.note(this.times[index] ?? 0, state);
    whole.lastTime = this.lastTime;
    return whole;
  }

  snapshot(): States {
    const copy = new States(this.topic, this.field);
    copy.times = this.times.slice();
    copy.names = this.names.slice();
    for (const state of this.seen) copy.seen.add(state);
    copy.lastTime = this.lastTime;
    copy.isText = this.isText;
    return copy;
  }
}

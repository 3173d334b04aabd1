/**
 * Numbers over time: bounded storage, honest gaps, and the columns that a chart draws.
 *
 * A line is broken where a loss is known (a `gap` from the gateway) and where a series that keeps a rhythm fell silent;
 * never between the reports of something that only speaks when it changes. Drawing keeps the extremes: a decimated
 * line has the same spikes as the full one.
 */
import { decimalsOf } from "./format.ts";
import type { Field } from "./values.ts";

export interface GapMark {
  /** Milliseconds since 1970. */
  from: number;
  /** null until something arrives after the loss. */
  to: number | null;
  reason: string;
  /** null when nobody can know. */
  lost: number | null;
}

/** What the line of a field of a topic is called. */
export const seriesKey = (topic: string, field: Field): string => `${field}\0${topic}`;

const FIRST_CAPACITY = 64;

/** One line: the values of one field of one topic, in time order. */
export class Series {
  private xs = new Float64Array(FIRST_CAPACITY);
  private ys = new Float64Array(FIRST_CAPACITY);
  private ns = new Float64Array(FIRST_CAPACITY);
  private start = 0;
  private end = 0;
  /** A snapshot reads the arrays below this index: what is written there is written to new ones. */
  private shared = 0;
  /** Values that were let go because the series was full, and the place in the log of the newest of them. */
  dropped = 0;
  droppedPlace = 0;
  /** Whether a value came that no state stands for. */
  isNumber = false;
  /** Decimals to show, so that a value keeps its width: the most that were seen. */
  decimals = 0;

  constructor(
    readonly topic: string,
    readonly field: Field,
    private readonly capacity = 20_000,
  ) {}

  get length(): number {
    return this.end - this.start;
  }

  time(index: number): number {
    return this.xs[this.start + index] ?? Number.NaN;
  }

  value(index: number): number {
    return this.ys[this.start + index] ?? Number.NaN;
  }

  /** The place in the log of what a value came with; 0 where it was not told. */
  place(index: number): number {
    return this.ns[this.start + index] ?? Number.NaN;
  }

  get lastTime(): number | null {
    return this.length ? this.time(this.length - 1) : null;
  }

  get lastValue(): number | null {
    return this.length ? this.value(this.length - 1) : null;
  }

  /** @param place grows along the log: what history has already is told by it from what is news. */
  push(time: number, value: number, place = 0): void {
    if (this.length >= this.capacity) {
      const shed = Math.ceil(this.capacity / 8);
      this.droppedPlace = this.place(shed - 1);
      this.start += shed;
      this.dropped += shed;
    }
    const isLate = (this.lastTime ?? time) > time;
    if (this.end === this.xs.length || (isLate && this.shared > 0)) this.makeRoom();
    const decimals = decimalsOf(value);
    if (decimals > this.decimals) this.decimals = decimals;
    if (value !== 0 && value !== 1) this.isNumber = true;
    let at = this.end;
    // Clocks step back now and then: keep time order, which all searches rely on.
    while (at > this.start && (this.xs[at - 1] ?? 0) > time) {
      this.xs[at] = this.xs[at - 1] ?? 0;
      this.ys[at] = this.ys[at - 1] ?? 0;
      this.ns[at] = this.ns[at - 1] ?? 0;
      at--;
    }
    this.xs[at] = time;
    this.ys[at] = value;
    this.ns[at] = place;
    this.end++;
  }

  /** Puts another value in the place of the newest one. */
  amend(value: number): void {
    if (this.length === 0) return;
    if (this.shared > 0) this.makeRoom();
    this.ys[this.end - 1] = value;
  }

  private makeRoom(): void {
    const length = this.length;
    const room = length > this.xs.length / 2 ? this.xs.length * 2 : this.xs.length;
    const xs = new Float64Array(room);
    const ys = new Float64Array(room);
    const ns = new Float64Array(room);
    ns.set(this.ns.subarray(this.start, this.end));
    xs.set(this.xs.subarray(this.start, this.end));
    ys.set(this.ys.subarray(this.start, this.end));
    this.xs = xs;
    this.ys = ys;
    this.ns = ns;
    this.start = 0;
    this.end = length;
    this.shared = 0;
  }

  /** The series as it is now, whatever comes after: the values are shared until they have to move. */
  snapshot(): Series {
    const copy = new Series(this.topic, this.field, this.capacity);
    copy.xs = this.xs;
    copy.ys = this.ys;
    copy.ns = this.ns;
    copy.start = this.start;
    copy.end = this.end;
    copy.dropped = this.dropped;
    copy.droppedPlace = this.droppedPlace;
    copy.decimals = this.decimals;
    copy.isNumber = this.isNumber;
    this.shared = this.end;
    return copy;
  }

  /** The index of the first value at or after `time` (may be `length`). */
  indexAt(time: number): number {
    let low = this.start;
    let high = this.end;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.xs[middle] ?? 0) < time) low = middle + 1;
      else high = middle;
    }
    return low - this.start;
  }

  /** The newest value at or before `time`, null when there is none. */
  valueAt(time: number): number | null {
    const index = this.indexAt(time + 1) - 1;
    return index < 0 ? null : this.value(index);
  }

  /** Whether the silence before a value breaks the line: where a rhythm was kept before and after, and nothing is late. */
  isSilentBefore(index: number): boolean {
    const silence = this.time(index) - this.time(index - 1);
    if (silence <= LEAST_SILENCE_MS) return false;
    const interval = usualInterval(
      usualOf(this.intervals(index - 1 - AROUND, index - 1)),
      usualOf(this.intervals(index, index + AROUND)),
    );
    if (silence <= SILENT_INTERVALS * interval) return false;
    // What came late all at once was kept by the broker meanwhile: nothing is missing.
    const soon = Math.max(2 * interval, LATE_MS);
    const came = this.indexAt(this.time(index) + soon) - index;
    return came - soon / interval < LATE_PART * (silence / interval - 1);
  }

  /** The times between the values from one index to another, in milliseconds. */
  private intervals(first: number, last: number): number[] {
    const found: number[] = [];
    for (let index = Math.max(1, first + 1); index <= Math.min(last, this.length - 1); index++) {
      found.push(this.time(index) - this.time(index - 1));
    }
    return found;
  }
}

/** A silence that is longer than so many of the usual intervals breaks a line. */
export const SILENT_INTERVALS = 3;
/** As many values on either side tell what is usual. */
export const AROUND = 20;
/** A shorter silence is no news, whatever the rhythm. */
const LEAST_SILENCE_MS = 2000;
/** Values that come within this time after a silence may be those that came late, and this part of them has to. */
const LATE_MS = 1000;
export const LATE_PART = 0.6;

/**
 * What is usual of some intervals: their median; Infinity where there is no rhythm, which is there when four of five are at
 * most twice the median; null where they are too few to tell.
 */
export function usualOf(intervals: number[]): number | null {
  if (intervals.length < 5) return null;
  intervals.sort((a, b) => a - b);
  const median = intervals[intervals.length >> 1] ?? 0;
  const high = intervals[Math.floor(intervals.length * 0.8)] ?? 0;
  return median <= 0 || high > 2 * median ? Number.POSITIVE_INFINITY : median;
}

/** What is usual on both sides of a silence: a sensor that was told to report less often isn't silent. */
export function usualInterval(before: number | null, after: number | null): number {
  if (before === null && after === null) return Number.POSITIVE_INFINITY;
  return Math.max(before ?? 0, after ?? 0);
}

/** One series as points to draw: `null` breaks the line. */
export interface Points {
  x: number[];
  y: (number | null)[];
}

/**
 * The part of a series that a window shows, one point beyond each side, at most about four for each pixel.
 *
 * @param gaps losses that are known; a line never crosses one.
 */
export function pointsIn(series: Series, from: number, to: number, pixels: number, gaps: readonly GapMark[]): Points {
  const first = Math.max(0, series.indexAt(from) - 1);
  const last = Math.min(series.length, series.indexAt(to) + 1);
  const points: Points = { x: [], y: [] };
  const count = last - first;
  if (count <= 0) return points;
  const buckets = Math.max(1, Math.floor(pixels));
  const decimate = count > buckets * 4;
  const bucketSpan = Math.max(1, (to - from) / buckets);
  let gap = 0;
  while (gap < gaps.length && (gaps[gap]?.to ?? Number.POSITIVE_INFINITY) <= series.time(first)) gap++;

  /** Whether the line is broken between two points that are next to each other; asked once for each two, in order. */
  const isBroken = (index: number): boolean => {
    const before = series.time(index - 1);
    const after = series.time(index);
    let isLost = false;
    for (; gap < gaps.length; gap++) {
      const { from: start, to: end } = gaps[gap] as GapMark;
      if (start >= after || (end ?? after) > after) break;
      if (start >= before - 1) isLost = true;
    }
    return isLost || series.isSilentBefore(index);
  };
  const add = (index: number) => {
    points.x.push(series.time(index));
    points.y.push(series.value(index));
  };
  let broken = false;
  for (let index = first; index < last; ) {
    const time = series.time(index);
    if (broken) {
      points.x.push((series.time(index - 1) + time) / 2);
      points.y.push(null);
    }
    // First, lowest, highest and last of each bucket: what a line through all of them would have touched.
    const until = decimate
      ? Math.min(from + (Math.floor((time - from) / bucketSpan) + 1) * bucketSpan, time + bucketSpan)
      : time;
    let low = index;
    let high = index;
    let end = index;
    broken = false;
    for (; end + 1 < last; end++) {
      const next = series.time(end + 1);
      broken = isBroken(end + 1);
      if (broken || next >= until) break;
      if (series.value(end + 1) < series.value(low)) low = end + 1;
      if (series.value(end + 1) > series.value(high)) high = end + 1;
    }
    for (const choice of new Set([index, Math.min(low, high), Math.max(low, high), end])) add(choice);
    index = end + 1;
  }
  return points;
}

/** The smallest and the largest value between two times, null when there is none. */
export function extent(series: Series, from: number, to: number): [number, number] | null {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  const last = series.indexAt(to + 1);
  for (let index = series.indexAt(from); index < last; index++) {
    const value = series.value(index);
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

/**
 * What a sparkline's height stands for, so that noise doesn't look like drama: where most of the range is jitter from
 * value to value, the line takes less than half of the height; a trend takes all of it.
 */
function calmSpread(series: Series, from: number, to: number, range: number): number {
  const first = series.indexAt(from);
  const last = series.indexAt(to + 1);
  if (last - first < 8) return range;
  let steps = 0;
  for (let index = first + 1; index < last; index++) steps += Math.abs(series.value(index) - series.value(index - 1));
  const step = steps / (last - first - 1);
  return Math.max(range, Math.min(12 * step, 2.5 * range));
}

/**
 * The line of a sparkline as an SVG path in a box of `width` × `height`.
 *
 * A flat line is drawn in the middle. Fewer than two points draw a dot (a zero-length segment with round caps).
 */
export function sparkPath(series: Series, from: number, to: number, width: number, height: number): string {
  const points = pointsIn(series, from, to, width, []);
  const range = extent(series, from, to);
  if (!range || to <= from) return "";
  const [low, high] = range;
  const spread = Math.max(calmSpread(series, from, to, high - low), Math.abs(high) * 0.02, 1e-9);
  const middle = (low + high) / 2;
  let path = "";
  let pen = false;
  let alone = true;
  for (const [index, time] of points.x.entries()) {
    const value = points.y[index];
    if (value === null || value === undefined) {
      if (pen && alone) path += "h0.01";
      pen = false;
      continue;
    }
    if (time < from || time > to) continue;
    const x = ((time - from) / (to - from)) * width;
    const y = height / 2 - ((value - middle) / spread) * (height - 4);
    path += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    alone = !pen;
    pen = true;
  }
  if (pen && alone) path += "h0.01";
  return path;
}

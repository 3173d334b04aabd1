/**
 * What a chart draws of one number: the mean of each stretch of time, and how far it went in that.
 *
 * History comes from the gateway as columns of one width; what came since is put into columns of the same width here, so
 * that nobody sees where one ends and the other begins. A few single readings are drawn as they are.
 */
import {
  AROUND,
  type GapMark,
  LATE_PART,
  type Points,
  pointsIn,
  type Series,
  SILENT_INTERVALS,
  seriesKey,
  usualInterval,
  usualOf,
} from "./series.ts";

/** History of one number: an entry for each stretch of `step` milliseconds from `start` on. */
export interface Columns {
  start: number;
  step: number;
  /** `raw`, `minute`, `hour`: what it is made of. */
  level: string;
  min: readonly (number | null)[];
  max: readonly (number | null)[];
  last: readonly (number | null)[];
  mean: readonly (number | null)[];
  count: readonly number[];
}

/** History of one text, in the same stretches. */
export interface TextColumns {
  start: number;
  step: number;
  first: readonly (string | null)[];
  last: readonly (string | null)[];
}

/** The gateway's answer to a question with `points` and `format=columns`. */
export interface Answer {
  /** What has a greater number in the log is not in it. */
  position: string;
  /** Why some of it is gone; null when all is there. */
  gap: string | null;
  start: number;
  step: number;
  /** Where it ends, milliseconds since 1970. */
  end: number;
  /** By `seriesKey`. */
  series: ReadonlyMap<string, Columns>;
  texts: ReadonlyMap<string, TextColumns>;
}

const strings = (value: unknown): (string | null)[] =>
  Array.isArray(value) ? value.map((entry) => (typeof entry === "string" ? entry : null)) : [];

const numbers = (value: unknown): (number | null)[] =>
  Array.isArray(value) ? value.map((entry) => (typeof entry === "number" ? entry : null)) : [];

/** Reads an answer. */
export function parseAnswer(body: unknown): Answer {
  const answer = body as Record<string, unknown>;
  const start = Number(answer.start);
  const step = Number(answer.step);
  const series = new Map<string, Columns>();
  for (const entry of Array.isArray(answer.series) ? answer.series : []) {
    const { topic, field, level, min, max, last, mean, count } = entry as Record<string, unknown>;
    series.set(seriesKey(String(topic), String(field)), {
      start,
      step,
      level: String(level),
      min: numbers(min),
      max: numbers(max),
      last: numbers(last),
      mean: numbers(mean),
      count: numbers(count).map((entry_) => entry_ ?? 0),
    });
  }
  const texts = new Map<string, TextColumns>();
  for (const entry of Array.isArray(answer.texts) ? answer.texts : []) {
    const { topic, field, first, last } = entry as Record<string, unknown>;
    texts.set(seriesKey(String(topic), String(field)), { start, step, first: strings(first), last: strings(last) });
  }
  const gap = answer.gap as { reason?: unknown } | undefined;
  const reason = answer.recovered === false ? String(gap?.reason ?? "evicted") : null;
  return {
    position: String(answer.position),
    gap: reason,
    start,
    step,
    end: start + step * Number(answer.points),
    series,
    texts,
  };
}

/** What readings of a time come to. */
interface Stats {
  min: number;
  max: number;
  mean: number;
  count: number;
}

/** One line, ready to be drawn. `null` breaks it. */
export interface Line extends Points {
  /** The least and the greatest of each point; null where all points are single readings. */
  band: { low: (number | null)[]; high: (number | null)[] } | null;
  /** Of what is in the window; null where nothing is. */
  stats: Stats | null;
  /** The newest reading at the end of the window; null where nothing is. */
  newest: number | null;
}

/** Readings that came after history was asked for. */
interface Tail {
  series: Series;
  /** Only what stands behind this place in the log. */
  after: number;
}

/** A clock that is set back by more than this may hide from the search for where a tail begins. */
const SET_BACK_MS = 60_000;

/** The index in a series from which on everything may belong to a tail. */
function tailStart({ series, after }: Tail, asOf: number): number {
  let index = series.length;
  while (index > 0 && (series.place(index - 1) > after || series.time(index - 1) > asOf - SET_BACK_MS)) index--;
  return index;
}

const LADDER = [1, 2, 5];

/** The least of 1, 2, 5, 10, … milliseconds that is no less: columns that stand still while a window grows. */
export function niceStep(least: number): number {
  for (let unit = 1; unit < 1e15; unit *= 10) {
    for (const factor of LADDER) if (unit * factor >= least) return unit * factor;
  }
  return 1e15;
}

/** Columns without anything in them, for a series that is here in full. */
export function emptyColumns(from: number, to: number, pixels: number): Columns {
  const step = niceStep((to - from) / Math.max(1, pixels));
  const start = Math.floor(from / step) * step;
  return { start, step, level: "raw", min: [], max: [], last: [], mean: [], count: [] };
}

interface Bucket {
  index: number;
  min: number;
  max: number;
  sum: number;
  count: number;
  last: number;
}

/** The columns from one index to another that hold something, with the tail in them. */
function buckets(columns: Columns, tail: Tail | null, first: number, end: number): Bucket[] {
  const found: Bucket[] = [];
  const places = new Map<number, Bucket>();
  for (let index = Math.max(0, first); index < Math.min(end, columns.count.length); index++) {
    const count = columns.count[index] ?? 0;
    const mean = columns.mean[index];
    if (count === 0 || mean === null || mean === undefined) continue;
    const bucket: Bucket = {
      index,
      min: columns.min[index] ?? mean,
      max: columns.max[index] ?? mean,
      sum: mean * count,
      count,
      last: columns.last[index] ?? mean,
    };
    found.push(bucket);
    places.set(index, bucket);
  }
  if (tail === null) return found;
  const { series } = tail;
  const whole = columns.count.length === 0;
  const from = whole
    ? series.indexAt(columns.start + first * columns.step)
    : tailStart(tail, columns.start + (columns.count.length - 1) * columns.step);
  let isSorted = true;
  for (let at = from; at < series.length; at++) {
    if (series.place(at) <= tail.after) continue;
    const index = Math.floor((series.time(at) - columns.start) / columns.step);
    if (index >= end) break;
    if (index < first) continue;
    const value = series.value(at);
    let bucket = places.get(index);
    if (!bucket) {
      bucket = { index, min: value, max: value, sum: 0, count: 0, last: value };
      isSorted &&= index > (found[found.length - 1]?.index ?? Number.NEGATIVE_INFINITY);
      found.push(bucket);
      places.set(index, bucket);
    }
    bucket.min = Math.min(bucket.min, value);
    bucket.max = Math.max(bucket.max, value);
    bucket.sum += value;
    bucket.count++;
    bucket.last = value;
  }
  return isSorted ? found : found.sort((a, b) => a.index - b.index);
}

/** Whether the columns without anything before one break the line; the same rule as for single readings. */
function isSilentBefore(found: readonly Bucket[], at: number): boolean {
  const bucket = found[at] as Bucket;
  const missing = bucket.index - (found[at - 1]?.index ?? 0) - 1;
  if (missing < 1) return false;
  /** Usual intervals of a side, in columns, and how many readings a column has there. */
  const side = (first: number, last: number): { interval: number | null; count: number } => {
    const distances: number[] = [];
    const counts: number[] = [];
    for (let index = Math.max(0, first); index <= Math.min(last, found.length - 1); index++) {
      counts.push(found[index]?.count ?? 1);
      if (index > Math.max(0, first)) distances.push((found[index]?.index ?? 0) - (found[index - 1]?.index ?? 0));
    }
    const usual = usualOf(distances);
    const count = counts.sort((a, b) => a - b)[counts.length >> 1] ?? 1;
    return { interval: usual === null ? null : usual / (usual === 1 ? count : 1), count };
  };
  const before = side(at - 1 - AROUND, at - 1);
  const after = side(at, at + AROUND);
  const interval = usualInterval(before.interval, after.interval);
  // with a reading a column, where it stands in that isn't known: up to a column more is no silence
  const silence = interval < 1 ? missing : missing + 1;
  if (silence <= SILENT_INTERVALS * interval) return false;
  const usual = before.interval === null ? after.count : before.count;
  return bucket.count - usual < LATE_PART * (missing / interval);
}

/**
 * The line of a window, from columns and what came since.
 *
 * @param columns history; `emptyColumns` where the series of the tail has everything.
 * @param tail what came since; null for none.
 * @param now nothing is drawn later, milliseconds since 1970.
 * @param gaps losses that are known; a line never crosses one.
 */
export function lineOf(
  columns: Columns,
  tail: Tail | null,
  from: number,
  to: number,
  now: number,
  gaps: readonly GapMark[],
): Line {
  const { start, step } = columns;
  const first = Math.floor((from - start) / step);
  const last = Math.floor((to - start) / step);
  // one more on each side, so that the line reaches the edge
  const span = last - first + 1;
  const column = (time: number | null | undefined) =>
    typeof time === "number" ? Math.floor((time - start) / step) : Number.POSITIVE_INFINITY;
  const found = buckets(columns, tail, first - span, last + 1 + span);
  let low = found.findIndex(({ index }) => index >= first);
  if (low < 0) low = found.length;
  let high = low;
  while (high < found.length && (found[high]?.index ?? 0) <= last) high++;
  const line: Line = { x: [], y: [], band: { low: [], high: [] }, stats: null, newest: null };
  const band = line.band as { low: (number | null)[]; high: (number | null)[] };
  let isBand = false;
  let sum = 0;
  let count = 0;
  let least = Number.POSITIVE_INFINITY;
  let most = Number.NEGATIVE_INFINITY;
  let gap = 0;
  let before: Bucket | null = null;
  const isLost = (left: number, right: number): boolean => {
    // a loop, as this is asked for each column of each line
    for (let at = gap; at < gaps.length; at++) {
      const begins = column(gaps[at]?.from);
      const ends = column(gaps[at]?.to);
      // a loss within one column can't be seen there
      if (left <= begins && begins < right && left < ends && ends <= right) return true;
    }
    return false;
  };
  for (let at = Math.max(0, low - 1); at < Math.min(found.length, high + 1); at++) {
    const bucket = found[at] as Bucket;
    const x = Math.min(start + (bucket.index + 0.5) * step, Math.max(now, start + bucket.index * step));
    if (before !== null) {
      while (gap < gaps.length && column(gaps[gap]?.to) < before.index) gap++;
      if (isLost(before.index, bucket.index) || isSilentBefore(found, at)) {
        line.x.push(((line.x[line.x.length - 1] ?? x) + x) / 2);
        line.y.push(null);
        band.low.push(null);
        band.high.push(null);
      }
    }
    line.x.push(x);
    line.y.push(bucket.sum / bucket.count);
    band.low.push(bucket.min);
    band.high.push(bucket.max);
    isBand ||= bucket.min < bucket.max;
    if (at >= low && at < high) {
      sum += bucket.sum;
      count += bucket.count;
      least = Math.min(least, bucket.min);
      most = Math.max(most, bucket.max);
      line.newest = bucket.last;
    }
    before = bucket;
  }
  if (count > 0) line.stats = { min: least, max: most, mean: sum / count, count };
  if (!isBand) line.band = null;
  return line;
}

/** More readings than so many for each pixel are drawn as columns. */
const DENSE = 2;

/** The line of a series that is here in full: its readings, or columns of them where there are more than can be seen. */
export function lineOfAll(
  series: Series,
  from: number,
  to: number,
  pixels: number,
  now: number,
  gaps: readonly GapMark[],
): Line {
  const first = series.indexAt(from);
  const end = series.indexAt(to + 1);
  if (end - first > DENSE * pixels) {
    const tail = { series, after: Number.NEGATIVE_INFINITY };
    const line = lineOf(emptyColumns(from, to, pixels), tail, from, to, now, gaps);
    return { ...line, newest: end > 0 ? series.value(end - 1) : null };
  }
  const line: Line = { ...pointsIn(series, from, to, pixels, gaps), band: null, stats: null, newest: null };
  if (end > 0) line.newest = series.value(end - 1);
  if (end > first) {
    let least = Number.POSITIVE_INFINITY;
    let most = Number.NEGATIVE_INFINITY;
    let sum = 0;
    for (let index = first; index < end; index++) {
      const value = series.value(index);
      least = Math.min(least, value);
      most = Math.max(most, value);
      sum += value;
    }
    line.stats = { min: least, max: most, mean: sum / (end - first), count: end - first };
  }
  return line;
}

/**
 * The index of the point that is nearest to a time, as long as the line isn't broken between the two; -1 where none is.
 */
export function nearestIndex(x: readonly number[], y: readonly (number | null)[], time: number): number {
  let low = 0;
  let high = x.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((x[middle] ?? 0) < time) low = middle + 1;
    else high = middle;
  }
  const right = low;
  const left = low - 1;
  const after = right < x.length && typeof y[right] === "number" ? (x[right] ?? 0) - time : Number.POSITIVE_INFINITY;
  const until = left >= 0 && typeof y[left] === "number" ? time - (x[left] ?? 0) : Number.POSITIVE_INFINITY;
  if (after === Number.POSITIVE_INFINITY && until === Number.POSITIVE_INFINITY) return -1;
  return until <= after ? left : right;
}

/** The reading of a line that is nearest to a moment: what its dot stands on; null where the line is broken. */
export function readingAt(line: Line, time: number): { time: number; value: number; low: number; high: number } | null {
  const index = nearestIndex(line.x, line.y, time);
  const value = line.y[index];
  if (value === null || value === undefined) return null;
  return {
    time: line.x[index] ?? time,
    value,
    low: line.band?.low[index] ?? value,
    high: line.band?.high[index] ?? value,
  };
}

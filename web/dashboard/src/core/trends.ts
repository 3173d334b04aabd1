/**
 * Sparklines: a day of each number in few columns, to which what comes live is added.
 *
 * Everything is in milliseconds, moments since 1970.
 */

import type { Columns } from "./columns.ts";
import { Series, seriesKey } from "./series.ts";
import type { Field } from "./values.ts";
import { t } from "./words.ts";

/** Columns of a sparkline: a bit more than a pixel for each. */
const POINTS = 96;
/** Numbers that a sparkline holds. */
const KEPT = 1000;
/** Columns of all sparklines in one answer. */
const ALL_POINTS = 24_000;

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** What sparklines may show. */
const TREND_WINDOWS = [1, 2, 3, 5, 7, 10, 15, 30, 60, 180, 360, 720, 1440].map((minutes) => minutes * MINUTE);

/** The smallest window that shows all there is of these trends: a demo that began a minute ago fills its lines too. */
export function trendWindow(trends: Iterable<Trend | null>, now: number): number {
  let oldest = now;
  for (const trend of trends) {
    if (trend && trend.series.length > 0) oldest = Math.min(oldest, trend.series.time(0));
  }
  return windowFor(now - oldest);
}

function windowFor(span: number): number {
  return TREND_WINDOWS.find((window) => span <= window) ?? DAY;
}

/**
 * Columns of each trend in a window. In a short one they are narrow, so that a history of a few seconds is a line and no
 * dot.
 */
export function pointsFor(window: number, trends: number): number {
  const wanted = window <= 2 * MINUTE ? KEPT - 40 : window <= 15 * MINUTE ? 4 * POINTS : POINTS;
  return Math.max(POINTS, Math.min(wanted, Math.floor(ALL_POINTS / Math.max(1, trends))));
}

/** A window in words. */
export function windowWords(window: number): string {
  if (window === MINUTE) return t("Last minute");
  return window < HOUR
    ? `Last ${window / MINUTE} minutes`
    : window === HOUR
      ? t("Last hour")
      : `Last ${window / HOUR} hours`;
}

/** A finer window for history that is younger than half of what was asked for; null where it is as old. */
export function finerWindow(columns: Iterable<Columns>, asked: number, now: number): number | null {
  let oldest: number | null = null;
  for (const { start, step, count } of columns) {
    const first = count.findIndex((each) => each > 0);
    if (first >= 0) oldest = Math.min(oldest ?? Number.POSITIVE_INFINITY, start + first * step);
  }
  if (oldest === null || now - oldest > asked / 2) return null;
  const window = windowFor(now - oldest);
  return window < asked ? window : null;
}

/** The line of a sparkline: means of columns, of which the newest goes on. */
export class Trend {
  readonly series: Series;
  /** How many readings the newest column has. */
  private count = 0;

  /** @param step how wide a column is; 0: each reading stands for itself. */
  constructor(
    topic: string,
    readonly field: Field,
    private readonly step = 0,
  ) {
    this.series = new Series(topic, field, KEPT);
  }

  /** A trend that begins with history; `worth` turns what a payload says into the reading that is meant. */
  static of(topic: string, field: Field, columns: Columns, worth = (value: number): number => value): Trend {
    const trend = new Trend(topic, field, columns.step);
    for (const [index, mean] of columns.mean.entries()) {
      if (mean === null) continue;
      trend.series.push(columns.start + (index + 0.5) * columns.step, worth(mean));
      trend.count = columns.count[index] ?? 1;
    }
    return trend;
  }

  /** Takes in a reading; what is older than the newest column is in it already. */
  note(time: number, value: number): void {
    const { series, step } = this;
    const last = series.lastTime;
    if (last !== null && step > 0) {
      const column = Math.floor(time / step) - Math.floor(last / step);
      if (column < 0) return;
      if (column === 0) {
        this.count++;
        series.amend((series.lastValue ?? 0) + (value - (series.lastValue ?? 0)) / this.count);
        return;
      }
    } else if (last !== null && time <= last) return;
    series.push(time, value);
    this.count = 1;
  }
}

/** When readings came, as far as columns tell: evenly spread over each. The newest ones, oldest first. */
export function timesOf(columns: Columns, most = 40): number[] {
  const times: number[] = [];
  for (let index = columns.count.length - 1; index >= 0 && times.length < most; index--) {
    const count = columns.count[index] ?? 0;
    for (let each = count - 1; each >= 0 && times.length < most; each--) {
      times.push(columns.start + (index + each / count) * columns.step);
    }
  }
  return times.reverse();
}

export interface WantedTrend {
  topic: string;
  field: Field;
}

const MAX_TOPICS = 60;
const MAX_FIELDS = 8;

/**
 * The wanted trends that one question asks for: few fields of some topics. A payload that is a number itself has no path to
 * be asked for by, and no other numbers.
 */
export function oneQuestion<T extends WantedTrend>(wanted: readonly T[]): T[] {
  const isPlain = wanted[0]?.field === "";
  const fields = new Set<Field>();
  const found: T[] = [];
  for (const each of wanted) {
    if (found.length === MAX_TOPICS || (each.field === "") !== isPlain) continue;
    if (!fields.has(each.field) && fields.size === MAX_FIELDS) continue;
    fields.add(each.field);
    found.push(each);
  }
  return found;
}

export const trendKey = ({ topic, field }: WantedTrend): string => seriesKey(topic, field);

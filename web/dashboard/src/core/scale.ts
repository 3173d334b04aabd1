/**
 * What the scale of a chart goes from and to.
 *
 * By itself it shows what readings usually are: a few that are far off don't make a flat line of all others. They are
 * counted, and told.
 */
import type { Line } from "./columns.ts";
import type { Field } from "./values.ts";

/** How a field's scale was chosen: `auto`, `all` readings, from `zero`, `log`, or two bounds. */
export type Scale = "auto" | "all" | "zero" | "log" | { low: number; high: number };

const SCALE = /^(.*):(?:(all|zero|log)|(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?))$/;

/** "temperature:10..30" as it stands in an address; null when it is something else. */
export function parseScale(text: string): { field: Field; scale: Scale } | null {
  const match = SCALE.exec(text);
  if (!match) return null;
  const [, field = "", word, low, high] = match;
  if (word !== undefined) return { field, scale: word as "all" | "zero" | "log" };
  const bounds = { low: Number(low), high: Number(high) };
  return bounds.low < bounds.high ? { field, scale: bounds } : null;
}

export function scaleText(field: Field, scale: Scale): string {
  return `${field}:${typeof scale === "string" ? scale : `${scale.low}..${scale.high}`}`;
}

/** Part of the readings on each side that may be far off. */
const RARE = 0.01;
/** Fewer readings don't tell what is usual. */
const ENOUGH = 20;
/** Times the spread of the others beyond which a reading is far off. */
const FAR = 2;

interface Extent {
  low: number;
  high: number;
  /** Points above and below it. */
  above: number;
  below: number;
}

/** From where to where the points of some lines go; null where there are none. */
export function extentOf(lines: readonly Line[], from: number, to: number, isAll: boolean): Extent | null {
  const room = lines.reduce((sum, { x }) => sum + x.length, 0);
  // typed arrays, which sort numbers in a quarter of the time
  let lows = new Float64Array(room);
  let highs = new Float64Array(room);
  let count = 0;
  for (const { x, y, band } of lines) {
    for (let index = 0; index < x.length; index++) {
      const time = x[index] as number;
      const value = y[index];
      if (value === null || value === undefined || time < from || time > to) continue;
      lows[count] = band?.low[index] ?? value;
      highs[count++] = band?.high[index] ?? value;
    }
  }
  if (count === 0) return null;
  lows = lows.subarray(0, count).sort();
  highs = highs.subarray(0, count).sort();
  const all = { low: lows[0] ?? 0, high: highs[highs.length - 1] ?? 0, above: 0, below: 0 };
  if (isAll || lows.length < ENOUGH) return all;
  const rare = Math.max(1, Math.floor(lows.length * RARE));
  const low = lows[rare] ?? all.low;
  const high = highs[highs.length - 1 - rare] ?? all.high;
  // where most readings are the same, another one is what there is to see
  const reach = FAR * (high - low);
  if (reach <= 0) return all;
  const above = highs.filter((value) => value > high + reach).length;
  const below = lows.filter((value) => value < low - reach).length;
  return {
    low: below > 0 ? (lows[below] ?? low) : all.low,
    high: above > 0 ? (highs[highs.length - 1 - above] ?? high) : all.high,
    above,
    below,
  };
}

/** A little air above and below; a flat line isn't blown up to drama, thresholds near the data are in view. */
export function airy({ low, high }: { low: number; high: number }, thresholds: readonly number[]): [number, number] {
  let bottom = low;
  let top = high;
  for (const value of thresholds) {
    const span = Math.max(top - bottom, Math.abs(top) * 0.05, 1e-6);
    if (value > bottom - 3 * span && value < top + 3 * span) {
      bottom = Math.min(bottom, value);
      top = Math.max(top, value);
    }
  }
  const least = Math.max(Math.abs(top) * 0.01, Math.abs(bottom) * 0.01, 1e-6);
  const air = Math.max((top - bottom) * 0.12, (least - (top - bottom)) / 2);
  const floor = low >= 0 && bottom - air < 0 ? 0 : bottom - air;
  return [floor, top + air];
}

/** What a scale goes from and to; on a logarithmic one from one power of ten to another. */
export function rangeOf(scale: Scale, extent: Extent | null, thresholds: readonly number[]): [number, number] {
  if (typeof scale !== "string") return [scale.low, scale.high];
  if (extent === null) return scale === "log" ? [1, 10] : [0, 1];
  if (scale === "log") {
    const high = extent.high > 0 ? extent.high : 1;
    const low = extent.low > 0 ? extent.low : high / 1000;
    const bottom = 10 ** Math.floor(Math.log10(low));
    return [bottom, Math.max(bottom * 10, 10 ** Math.ceil(Math.log10(high)))];
  }
  const [low, high] = airy(extent, thresholds);
  return scale === "zero" ? [Math.min(0, low), Math.max(0, high)] : [low, high];
}

/**
 * How far a line goes up and down, in heights of its scale.
 *
 * @param range what the scale goes from and to.
 * @param isLog whether it is logarithmic.
 */
export function travelOf(
  y: readonly (number | null)[],
  [low, high]: readonly [number, number],
  isLog: boolean,
): number {
  const height = (value: number) => (isLog ? Math.log10(value) : value);
  let travel = 0;
  let last: number | null = null;
  for (const value of y) {
    const at: number | null =
      value === null || (isLog && value <= 0) ? null : height(Math.min(high, Math.max(low, value)));
    if (at !== null && last !== null) travel += Math.abs(at - last);
    last = at;
  }
  return travel / (height(high) - height(low));
}

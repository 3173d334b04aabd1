/** Numbers, times and sizes as people read them. Every function is pure; `now` is always handed in. */

import { t } from "./words.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A number with as many decimals as it has, at most `digits` significant ones, never `-0`. */
export function formatNumber(value: number, digits = 6): string {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e15 || size < 1e-6) return value.toExponential(2);
  if (Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size)) + 1))));
}

/**
 * A number of a payload as it is shown in full. A whole number beyond 2^53 was rounded when the payload was read:
 * "≈" says that its last digits are not those that were sent.
 */
export function numberText(value: number): string {
  return Number.isInteger(value) && !Number.isSafeInteger(value) ? `≈${value}` : String(value);
}

/** A reading with the fixed decimals that `decimals` says, so that a value which changes doesn't change its width. */
export function formatReading(value: number, decimals: number): string {
  if (!Number.isFinite(value)) return "–";
  const text = value.toFixed(Math.min(decimals, 6));
  return /^-0(\.0*)?$/.test(text) ? text.slice(1) : text;
}

/** `formatReading` for what has a usual size, `formatNumber` for what has not. */
export function formatSteady(value: number, decimals: number): string {
  const size = Math.abs(value);
  return size >= 1e7 || (size > 0 && size < 1e-3) ? formatNumber(value) : formatReading(value, decimals);
}

/** How many decimals a number is written with, at most four. */
export function decimalsOf(value: number): number {
  if (!Number.isFinite(value) || Number.isInteger(value)) return 0;
  const text = String(value);
  if (text.includes("e")) return 4;
  return Math.min(4, text.length - text.indexOf(".") - 1);
}

/** Messages a second as the largest unit that leaves at least one: "42/s", "6/min", "3/h". */
export function formatRate(perSecond: number): string {
  if (!(perSecond > 0)) return "0/s";
  if (perSecond >= 1000) return `${(perSecond / 1000).toFixed(1)}k/s`;
  if (perSecond >= 9.95) return `${Math.round(perSecond)}/s`;
  if (perSecond >= 0.5) return `${trimZero(perSecond.toFixed(1))}/s`;
  const perMinute = perSecond * 60;
  if (perMinute >= 0.95) return `${Math.round(perMinute)}/min`;
  const perHour = perSecond * 3600;
  return perHour >= 0.95 ? `${Math.round(perHour)}/h` : "< 1/h";
}

/**
 * Messages a minute without the unit, for a column of them: "6,000", "12", "1.5", "0.02". A column has one unit, so that
 * what is more is also longer.
 */
export function formatPerMinute(perSecond: number): string {
  const perMinute = perSecond * 60;
  if (!(perMinute > 0)) return "0";
  if (perMinute >= 9.95) return formatCount(perMinute);
  if (perMinute >= 0.095) return trimZero(perMinute.toFixed(1));
  return perMinute >= 0.005 ? perMinute.toFixed(2) : "< 0.01";
}

function trimZero(text: string): string {
  return text.endsWith(".0") ? text.slice(0, -2) : text;
}

/** 1234567 as "1,234,567", or as the page's language has it; the browser's doesn't matter, so that pictures don't differ. */
export function formatCount(count: number): string {
  return Math.round(count)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, t(","));
}

/** So many of something: "1 message", "1,234 messages". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${formatCount(count)} ${t(Math.round(count) === 1 ? one : many)}`;
}

/** How long ago, in one unit: "now", "12 s", "5 min", "3 h", "2 d". Negative ages (clocks that differ) are "now". */
export function formatAge(milliseconds: number): string {
  if (milliseconds < 1500) return "now";
  if (milliseconds < MINUTE) return `${Math.floor(milliseconds / 1000)} s`;
  if (milliseconds < HOUR) return `${Math.floor(milliseconds / MINUTE)} min`;
  if (milliseconds < 2 * DAY) return `${Math.floor(milliseconds / HOUR)} h`;
  return `${Math.floor(milliseconds / DAY)} d`;
}

/**
 * How long ago, for a column: "0:05", "2:00", "3:04:11", "2 d 03:04". What is older is longer, so that a column can be
 * compared at a glance; of days the seconds are left out. Negative ages are "0:00".
 */
export function formatElapsed(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (hours >= 24) return `${Math.floor(hours / 24)} d ${two(hours % 24)}:${two(minutes % 60)}`;
  if (hours > 0) return `${hours}:${two(minutes % 60)}:${two(seconds % 60)}`;
  return `${minutes}:${two(seconds % 60)}`;
}

/** A span such as a delay or a rhythm: "0.4 ms", "12 ms", "1.5 s", "10 s", "5 min". */
export function formatSpan(milliseconds: number): string {
  const size = Math.abs(milliseconds);
  if (!Number.isFinite(size)) return "–";
  if (size < 9.95) return `${trimZero(milliseconds.toFixed(1))} ms`;
  if (size < 1000) return `${Math.round(milliseconds)} ms`;
  if (size < 10_000) return `${trimZero((milliseconds / 1000).toFixed(1))} s`;
  if (size < 2 * MINUTE) return `${Math.round(milliseconds / 1000)} s`;
  if (size < 2 * HOUR) return `${Math.round(milliseconds / MINUTE)} min`;
  if (size < 2 * DAY) return `${Math.round(milliseconds / HOUR)} h`;
  return `${Math.round(milliseconds / DAY)} d`;
}

export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${trimZero((bytes / 1024).toFixed(1))} KiB`;
  return `${trimZero((bytes / 1024 / 1024).toFixed(1))} MiB`;
}

const two = (part: number) => String(part).padStart(2, "0");

/** Local time of day, "14:03:07", with ".123" when `precise`. */
export function formatClock(time: number, precise = false): string {
  const at = new Date(time);
  const text = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return precise ? `${text}.${String(at.getMilliseconds()).padStart(3, "0")}` : text;
}

/** Whether a time is of this day, by this machine's clock. */
export function isToday(time: number, now = Date.now()): boolean {
  return new Date(time).toDateString() === new Date(now).toDateString();
}

/** A time of today as `formatClock` has it; of another day with its date, "05-04 14:03:07". */
export function formatMoment(time: number, precise = false, today = Date.now()): string {
  const at = new Date(time);
  const clock = formatClock(time, precise);
  if (isToday(time, today)) return clock;
  return `${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}`;
}

/** Local date and time, "2026-05-04 14:03:07". */
export function formatDateTime(time: number): string {
  const at = new Date(time);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${formatClock(time)}`;
}

/** Local date and time as an input of the type `datetime-local` has it, to the second. */
export function toLocal(time: number): string {
  return formatDateTime(time).replace(" ", "T");
}

/** What such an input says, in milliseconds since 1970; null when it is no moment. */
export function fromLocal(text: string): number | null {
  const time = /^\d{4}-\d\d-\d\dT/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(time) ? null : time;
}

const SPAN = /^(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)$/;
const UNIT: Record<string, number> = { ms: 1, s: 1000, m: MINUTE, min: MINUTE, h: HOUR, d: DAY };

/** "90s", "10m", "2h", "1d" in milliseconds; null when it is something else. */
export function parseSpan(text: string): number | null {
  const match = SPAN.exec(text.trim());
  if (!match) return null;
  return Number(match[1]) * (UNIT[match[2] ?? ""] ?? Number.NaN);
}

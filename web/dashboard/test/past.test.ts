import { describe, expect, it } from "vitest";
import type { Answer, Columns } from "../src/core/columns.ts";
import {
  fits,
  type Need,
  type Piece,
  Pieces,
  pieceOf,
  questionOf,
  RAW_LIMIT,
  rawCount,
  suits,
} from "../src/core/past.ts";
import { seriesKey } from "../src/core/series.ts";

const HOUR = 3_600_000;
const NOW = 1000 * HOUR;

const need = (from: number, to: number, more: Partial<Need> = {}): Need => ({
  topics: ["a"],
  fields: ["t"],
  window: { from, to },
  pixels: 1000,
  now: NOW,
  ...more,
});

function columns(start: number, step: number, counts: number[], level = "raw"): Columns {
  const values = counts.map((count) => (count ? 1 : null));
  return { start, step, level, min: values, max: values, last: values, mean: values, count: counts };
}

/** What the gateway answers, with columns that are no narrower than `unit`. */
function answered(wanted: Need, unit = 1, series?: Columns): Piece {
  const question = questionOf(wanted);
  const step = Math.ceil((question.until - question.since) / ((question.points - 1) * unit)) * unit;
  const start = Math.floor(question.since / step) * step;
  const answer: Answer = {
    position: "k3:9",
    gap: null,
    start,
    step,
    end: question.until,
    series: new Map([[seriesKey("a", "t"), series ?? columns(start, step, [0, 1])]]),
    texts: new Map([[seriesKey("a", "mode"), { start, step, first: ["idle", null], last: ["heat", null] }]]),
  };
  return pieceOf(question, wanted.now, [{ topics: wanted.topics, answer }]);
}

describe("what a window asks for", () => {
  it("is about a column for each pixel, with room on both sides", () => {
    const { since, until, points, isOpen } = questionOf(need(NOW - 10 * HOUR, NOW - 6 * HOUR));
    expect(since).toBeLessThanOrEqual(NOW - 11 * HOUR);
    expect(since).toBeGreaterThan(NOW - 11.5 * HOUR);
    expect(until).toBeGreaterThanOrEqual(NOW - 5 * HOUR);
    expect([points, isOpen]).toEqual([Math.ceil(((until - since) / (4 * HOUR)) * 1000), false]);
  });
  it("goes on live where it reaches now, and never asks for more points than there may be", () => {
    expect(questionOf(need(NOW - HOUR, NOW))).toMatchObject({ isOpen: true, until: NOW });
    expect(questionOf(need(NOW - HOUR, NOW, { pixels: 9000 })).points).toBe(5000);
  });
  it("is the same for windows that differ by a little", () => {
    const ask = (shift: number) => questionOf(need(NOW - 9.4 * HOUR + shift, NOW - 5.4 * HOUR + shift));
    expect(ask(60_000)).toEqual(ask(0));
    expect(ask(HOUR)).not.toEqual(ask(0));
  });
});

describe("what is on its way", () => {
  const SECOND = 1000;
  const begin = NOW - 30 * SECOND;
  const young = need(begin, NOW);
  it("will do for a window that has grown meanwhile, although it would be asked for in other words", () => {
    const later = need(begin, NOW + 5 * SECOND, { now: NOW + 5 * SECOND });
    expect(questionOf(later)).not.toEqual(questionOf(young));
    expect(suits(questionOf(young), later)).toBe(true);
  });
  it("won't do for what is older, narrower or another line", () => {
    const asked = questionOf(young);
    expect(suits(asked, need(begin - 60 * SECOND, NOW))).toBe(false);
    expect(suits(asked, need(NOW - 5 * SECOND, NOW))).toBe(false);
    expect(suits(asked, need(begin, NOW, { topics: ["a", "b"] }))).toBe(false);
  });
});

describe("what came", () => {
  it("draws its window, and those that are not much narrower or wider", () => {
    const piece = answered(need(NOW - 10 * HOUR, NOW - 6 * HOUR));
    expect(fits(piece, need(NOW - 10 * HOUR, NOW - 6 * HOUR))).toBe(true);
    expect(fits(piece, need(NOW - 10.9 * HOUR, NOW - 7 * HOUR))).toBe(true);
    expect(fits(piece, need(NOW - 12 * HOUR, NOW - 8 * HOUR))).toBe(false);
    expect(fits(piece, need(NOW - 8 * HOUR, NOW - 7 * HOUR))).toBe(false);
    expect(fits(piece, need(NOW - 8 * HOUR, NOW - 7 * HOUR, { pixels: 250 }))).toBe(true);
    expect(fits(piece, need(NOW - 8 * HOUR, NOW - 7 * HOUR, { pixels: 250, fields: ["t", "h"] }))).toBe(false);
    expect(fits(piece, need(NOW - 8 * HOUR, NOW - 7 * HOUR, { pixels: 250, topics: ["a", "b"] }))).toBe(false);
  });
  it("goes on live for as long as the window moves with the clock", () => {
    const piece = answered(need(NOW - HOUR, NOW));
    expect(fits(piece, need(NOW + 4 * HOUR, NOW + 5 * HOUR, { now: NOW + 5 * HOUR }))).toBe(true);
    const past = answered(need(NOW - 3 * HOUR, NOW - 2 * HOUR));
    expect(fits(past, need(NOW - HOUR, NOW))).toBe(false);
  });
  it("is enough where the gateway has nothing narrower", () => {
    const piece = answered(need(NOW - HOUR, NOW - HOUR / 2), 60_000);
    expect(piece.step).toBe(60_000);
    expect(fits(piece, need(NOW - HOUR, NOW - HOUR / 2))).toBe(true);
  });
});

describe("pieces of history", () => {
  it("are found again, the newest first, and go when there are too many", () => {
    const pieces = new Pieces({ answers: 3, columns: 1000 });
    const windows = [1, 2, 3, 4].map((index) => need(NOW - index * 100 * HOUR, NOW - index * 100 * HOUR + HOUR));
    for (const each of windows.slice(0, 3)) pieces.add(answered(each));
    expect(pieces.find(windows[0] as Need)).not.toBeNull();
    pieces.add(answered(windows[3] as Need));
    expect(pieces.length).toBe(3);
    expect(windows.map((each) => pieces.find(each) !== null)).toEqual([true, false, true, true]);
  });
  it("are bounded in columns, but for the one that is shown", () => {
    const pieces = new Pieces({ answers: 10, columns: 1000 });
    const large = columns(0, 1, new Array(900).fill(1));
    pieces.add(answered(need(HOUR, 2 * HOUR), 1, large));
    pieces.add(answered(need(100 * HOUR, 101 * HOUR), 1, large));
    expect(pieces.length).toBe(1);
  });
  it("give way to one that has all of theirs", () => {
    const pieces = new Pieces();
    pieces.add(answered(need(NOW - HOUR, NOW)));
    pieces.add(answered(need(NOW - HOUR, NOW, { topics: ["a", "b"] })));
    expect(pieces.length).toBe(1);
  });
  it("draw what they have until better comes: what covers most, of those the finest", () => {
    const pieces = new Pieces();
    const coarse = answered(need(NOW - 1000 * HOUR + 1, NOW));
    const fine = answered(need(NOW - 10 * HOUR, NOW - 8 * HOUR));
    pieces.add(fine);
    pieces.add(coarse);
    const best = (from: number, to: number) =>
      pieces.best("a", "t", { from: NOW - from * HOUR, to: NOW - to * HOUR }, NOW);
    expect(best(9.5, 8.5)).toBe(fine);
    expect(best(20, 8.5)).toBe(coarse);
    expect(pieces.best("b", "t", { from: 1, to: NOW }, NOW)).toBeNull();
  });
  it("know when the first reading was, if they reach so far and up to now", () => {
    const pieces = new Pieces();
    expect(pieces.oldest(["a"], ["t"], NOW - HOUR)).toBeNull();
    const piece = answered(need(NOW - HOUR, NOW));
    pieces.add(piece);
    expect(pieces.oldest(["a"], ["t"], NOW - HOUR)).toEqual({ time: piece.oldest });
    expect(pieces.oldest(["a"], ["t"], NOW - 9 * HOUR)).toBeNull();
  });
});

describe("single readings", () => {
  const wanted = need(NOW - HOUR, NOW - HOUR / 2);
  const piece = (counts: number[], level: string) =>
    answered(wanted, 60_000, columns(NOW - HOUR, 60_000, counts, level));
  it("are fetched where columns are wider than need be, and these are few", () => {
    expect(rawCount(piece([10, 20], "minute"), wanted.window, 1000)).toBe(30);
    expect(rawCount(piece([10, 20], "raw"), wanted.window, 1000)).toBeNull();
    expect(rawCount(piece([RAW_LIMIT, 1], "minute"), wanted.window, 1000)).toBeNull();
    expect(rawCount(piece([0, 0], "minute"), wanted.window, 1000)).toBeNull();
    expect(rawCount(piece([10, 20], "minute"), wanted.window, 50)).toBeNull();
  });
});

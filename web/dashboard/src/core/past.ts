/**
 * Which history a chart has to ask for, and which of what came already draws it best.
 *
 * A window is asked for with some room beside it, at about a column for each pixel: moving a little costs nothing, and
 * what was seen before is still there. Everything is in milliseconds, moments since 1970.
 */
import { type Answer, type Columns, niceStep, type TextColumns } from "./columns.ts";
import type { Series } from "./series.ts";
import type { TimeWindow } from "./window.ts";

/** The most columns that the gateway makes of one number. */
const MAX_POINTS = 5000;
/** Parts of the window that are asked for on each of its sides. */
const ROOM = 0.25;
/** Columns wider than so many pixels are too coarse, if narrower ones can be had. */
const COARSE = 1.6;
/** Columns of which so many fall on a pixel are more than has to be drawn. */
const FINE = 6;
/** Answers that are kept, and numbers in them. */
const KEPT = { answers: 12, columns: 600_000 };
/** Readings that are fetched one by one where columns are too coarse for what is shown. */
export const RAW_LIMIT = 5000;

export interface Question {
  topics: readonly string[];
  fields: readonly string[];
  since: number;
  until: number;
  /** Whether it goes on live: then the gateway's own clock says where history ends. */
  isOpen: boolean;
  points: number;
}

export interface Piece {
  question: Question;
  askedAt: number;
  series: ReadonlyMap<string, Columns>;
  texts: ReadonlyMap<string, TextColumns>;
  /** The position of each topic's answer. */
  positions: ReadonlyMap<string, string>;
  gap: string | null;
  /** Its widest columns. */
  step: number;
  /** When the first reading was; null where none is. */
  oldest: number | null;
  /** Single readings of the same time; null where they weren't fetched. */
  raw: { series: ReadonlyMap<string, Series>; position: string } | null;
}

/** What a window needs. */
export interface Need {
  topics: readonly string[];
  fields: readonly string[];
  window: TimeWindow;
  /** How wide it is drawn. */
  pixels: number;
  now: number;
}

/** The question that a window asks. */
export function questionOf({ topics, fields, window, pixels, now }: Need): Question {
  const span = window.to - window.from;
  const grain = niceStep(span / 20);
  const since = Math.max(1, Math.floor((window.from - ROOM * span) / grain) * grain);
  const wanted = Math.ceil((window.to + ROOM * span) / grain) * grain;
  const isOpen = wanted >= now;
  const until = Math.max(since + 1, isOpen ? Math.round(now) : wanted);
  const points = Math.min(MAX_POINTS, Math.max(2, Math.ceil(((until - since) / span) * pixels)));
  return { topics, fields, since, until, isOpen, points };
}

/** Puts answers to one question, each for some of its topics, together. */
export function pieceOf(
  question: Question,
  now: number,
  answers: readonly { topics: readonly string[]; answer: Answer }[],
): Piece {
  const series = new Map<string, Columns>();
  const texts = new Map<string, TextColumns>();
  const positions = new Map<string, string>();
  let gap: string | null = null;
  let step = 0;
  let oldest: number | null = null;
  for (const { topics, answer } of answers) {
    for (const topic of topics) positions.set(topic, answer.position);
    gap ??= answer.gap;
    step = Math.max(step, answer.step);
    for (const [key, columns] of answer.texts) texts.set(key, columns);
    for (const [key, columns] of answer.series) {
      series.set(key, columns);
      const first = columns.count.findIndex((count) => count > 0);
      if (first >= 0) oldest = Math.min(oldest ?? Number.POSITIVE_INFINITY, columns.start + first * columns.step);
    }
  }
  return { question, askedAt: now, series, texts, positions, gap, step, oldest, raw: null };
}

const holds = (all: readonly string[], some: readonly string[]) => some.every((entry) => all.includes(entry));

/** Whether a question is about all of a window. */
function covers(question: Question, { topics, fields, window, now }: Need): boolean {
  if (!holds(question.topics, topics) || !holds(question.fields, fields)) return false;
  return question.since <= window.from && (question.isOpen || question.until >= Math.min(window.to, now));
}

/** How wide the columns are that a question asks for. */
const askedStep = (question: Question) => (question.until - question.since) / question.points;

const pixelOf = ({ window, pixels }: Need) => (window.to - window.from) / pixels;

/** Whether the answer to a question that is on its way will do for a window: then there is no need of another one. */
export function suits(question: Question, need: Need): boolean {
  return covers(question, need) && askedStep(question) <= COARSE * pixelOf(need);
}

/** Whether a piece draws a window as well as it can be drawn. */
export function fits(piece: Piece, need: Need): boolean {
  if (!covers(piece.question, need)) return false;
  if (piece.raw !== null) return true;
  const pixel = pixelOf(need);
  // as narrow as was asked for: where they are wider, the gateway has none that are narrower
  return Math.min(askedStep(piece.question), piece.step) <= COARSE * pixel && piece.step * FINE >= pixel;
}

/** How much of a window a piece covers, from 0 to 1. */
function cover(piece: Piece, window: TimeWindow, now: number): number {
  const from = Math.max(piece.question.since, window.from);
  const to = Math.min(piece.question.isOpen ? now : piece.question.until, window.to);
  return Math.max(0, to - from) / (window.to - window.from);
}

/**
 * Pieces of history, the most recently used ones.
 */
export class Pieces {
  private pieces: Piece[] = [];

  /** @param kept lower ones for tests. */
  constructor(private readonly kept = KEPT) {}

  get length(): number {
    return this.pieces.length;
  }

  add(piece: Piece): void {
    this.pieces = [piece, ...this.pieces.filter((other) => !isWithin(other, piece))];
    let columns = 0;
    this.pieces = this.pieces.filter((other, index) => {
      for (const each of other.series.values()) columns += each.count.length;
      return index === 0 || (index < this.kept.answers && columns <= this.kept.columns);
    });
  }

  /** Forgets what goes on live, as that has become another. */
  dropOpen(): void {
    this.pieces = this.pieces.filter((piece) => !piece.question.isOpen);
  }

  /** The one that draws a window as well as it can be drawn; null where it has to be asked for. */
  find(need: Need): Piece | null {
    const found = this.pieces.find((piece) => fits(piece, need));
    if (!found) return null;
    this.pieces = [found, ...this.pieces.filter((piece) => piece !== found)];
    return found;
  }

  /** When the first reading of these lines was, as far back as `from`; null where that isn't known. */
  oldest(topics: readonly string[], fields: readonly string[], from: number): { time: number | null } | null {
    const found = this.pieces.find(
      ({ question }) =>
        question.isOpen && question.since <= from && holds(question.topics, topics) && holds(question.fields, fields),
    );
    return found ? { time: found.oldest } : null;
  }

  /** What draws something of a line while better is on its way: what covers most of it, of those the finest. */
  best(topic: string, field: string, window: TimeWindow, now: number): Piece | null {
    let best: Piece | null = null;
    let most = 0;
    for (const piece of this.pieces) {
      if (!piece.question.topics.includes(topic) || !piece.question.fields.includes(field)) continue;
      const part = cover(piece, window, now);
      if (part > most + 0.01 || (best !== null && Math.abs(part - most) <= 0.01 && piece.step < best.step)) {
        best = piece;
        most = part;
      }
    }
    return best;
  }
}

/** Whether all that a piece has is in a newer one as well, as fine. */
function isWithin(piece: Piece, newer: Piece): boolean {
  const [old, young] = [piece.question, newer.question];
  return (
    holds(young.topics, old.topics) &&
    holds(young.fields, old.fields) &&
    young.since <= old.since &&
    (young.isOpen || young.until >= old.until) &&
    newer.step <= piece.step &&
    (piece.raw === null || newer.raw !== null)
  );
}

/**
 * How many messages single readings of a piece's time would be; null where columns are fine enough for a window, or
 * there are too many.
 */
export function rawCount(piece: Piece, window: TimeWindow, pixels: number): number | null {
  if (piece.raw !== null || piece.step <= (2 * (window.to - window.from)) / pixels) return null;
  const counts = new Map<string, number>();
  for (const [key, columns] of piece.series) {
    if (columns.level === "raw") continue;
    const topic = key.slice(key.indexOf("\0") + 1);
    const count = columns.count.reduce((sum, each) => sum + each, 0);
    counts.set(topic, Math.max(counts.get(topic) ?? 0, count));
  }
  let all = 0;
  for (const count of counts.values()) all += count;
  return all > 0 && all <= RAW_LIMIT ? all : null;
}

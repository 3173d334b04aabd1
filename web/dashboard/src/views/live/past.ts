/** The history that a chart shows: asked for as the window needs it, and drawn with what is live. */
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../../api.ts";
import { type Columns, emptyColumns, type Line, lineOf, lineOfAll } from "../../core/columns.ts";
import { byPath, type Lens, translated } from "../../core/lens.ts";
import {
  type Need,
  type Piece,
  type Pieces,
  pieceOf,
  type Question,
  questionOf,
  rawCount,
  suits,
} from "../../core/past.ts";
import { type GapMark, Series, seriesKey } from "../../core/series.ts";
import type { States } from "../../core/states.ts";
import type { LiveStore } from "../../core/store.ts";
import { eachNumber, type Field } from "../../core/values.ts";
import type { TimeWindow } from "../../core/window.ts";
import { gatewayNow } from "../../session.ts";

/** A window that moves is asked for when it has stood still for so long, in milliseconds. */
const DEBOUNCE_MS = 150;
/** How often history is asked for again because live messages were left out. */
const REFRESH_MS = 15_000;
/** After how long a refusal that passes (429, 503, no connection) is followed by another try. */
const RETRY_MS = 3000;

export interface Past {
  /** Whether something is on its way, and since when, by `performance.now()`. */
  loadingSince: number | null;
  /** Why it didn't come. */
  problem: string | null;
  /** Counts up whenever there is more to draw. */
  version: number;
  /** What draws the window as well as can be, where it is there. */
  piece: Piece | null;
  /** Where lines come from; `isWhole`: the store has all of them. */
  source(isWhole: boolean): Source;
  retry(): void;
}

interface Source {
  pieces: Pieces;
  piece: Piece | null;
  store: LiveStore;
  isWhole: boolean;
}

interface Asked {
  store: LiveStore;
  /** Whether a line has to be asked for at all; false: the store has all of it. */
  isWanted: boolean;
  need: Need;
  /** Through which its topics are devices. */
  lens: Lens | null;
}

/** Asks for what a window needs, the newest question only; what came stays for a while. */
export function usePast(pieces: Pieces, { store, isWanted, need, lens }: Asked): Past {
  const [version, setVersion] = useState(0);
  const [problem, setProblem] = useState<string | null>(null);
  const [tries, setTries] = useState(0);
  const [loadingSince, setLoadingSince] = useState<number | null>(null);
  const latest = useRef(need);
  latest.current = need;
  const piece = isWanted ? usable(pieces.find(need), store, need) : null;
  const isMissing = isWanted && need.topics.length > 0 && need.fields.length > 0 && piece === null;
  const question = questionOf(need);
  /** What is on its way: a window that grows faster than answers come would never see one. */
  const flying = useRef<{ question: Question; key: string } | null>(null);
  // what moves with the clock alone is the same question
  const key = !isMissing
    ? ""
    : flying.current && suits(flying.current.question, need)
      ? flying.current.key
      : [question.topics, question.fields, question.isOpen ? question.points : question.until, question.since].join(
          "\n",
        );
  const first = useRef(true);
  useEffect(() => {
    if (key === "") {
      setLoadingSince(null);
      return undefined;
    }
    const aborter = new AbortController();
    setLoadingSince((since) => since ?? performance.now());
    const load = async () => {
      first.current = false;
      const wanted = questionOf(latest.current);
      flying.current = { question: wanted, key };
      const askedAt = gatewayNow();
      try {
        const made = pieceOf(wanted, askedAt, await columnsOf(wanted, lens, aborter.signal));
        pieces.add(made);
        flying.current = null;
        setProblem(null);
        setVersion((value) => value + 1);
        if (!lens) await refine(made, latest.current, aborter.signal);
        setLoadingSince(null);
        setVersion((value) => value + 1);
      } catch (error) {
        if (aborter.signal.aborted) return;
        flying.current = null;
        setLoadingSince(null);
        setProblem((error as Error).message);
        const passes = !(error instanceof api.ApiError) || error.status === 429 || error.status >= 500;
        if (passes) timer = window.setTimeout(() => setTries((value) => value + 1), RETRY_MS);
      }
    };
    let timer = window.setTimeout(load, first.current ? 0 : DEBOUNCE_MS);
    return () => {
      clearTimeout(timer);
      aborter.abort();
      flying.current = null;
    };
  }, [key, tries]);
  return {
    piece,
    source: (isWhole) => ({ pieces, piece, store, isWhole }),
    version,
    problem: isMissing ? problem : null,
    loadingSince: isMissing || loadingSince !== null ? loadingSince : null,
    retry: () => setTries((value) => value + 1),
  };
}

/** The columns that a question asks for, through a lens where there is one. */
async function columnsOf(question: Question, lens: Lens | null, signal: AbortSignal) {
  if (!lens) return api.columns(question, signal);
  const found: Awaited<ReturnType<typeof api.columns>> = [];
  for (const [path, ids] of byPath(lens, question.topics)) {
    const topics = [...new Set(ids.map((id) => lens.places.get(id)?.topic ?? ""))];
    for (const part of await api.columns({ ...question, topics, fields: [path] }, signal)) {
      const told = ids.filter((id) => part.topics.includes(lens.places.get(id)?.topic ?? ""));
      found.push({ topics: told, answer: translated(lens, told, part.answer) });
    }
  }
  return found;
}

/** A piece that goes on live is of use as long as the store has all that came since. */
function usable(piece: Piece | null, store: LiveStore, { topics, fields, now }: Need): Piece | null {
  if (piece === null || !piece.question.isOpen) return piece;
  if (store.thinnedUntil > piece.askedAt && now - piece.askedAt > REFRESH_MS) return null;
  for (const topic of topics) {
    const after = store.placeOf(piece.raw?.position ?? piece.positions.get(topic) ?? "");
    if (after === null) return null;
    for (const field of fields) {
      if ((store.series.get(seriesKey(topic, field))?.droppedPlace ?? 0) > after) return null;
    }
  }
  return piece;
}

/** Fetches single readings where columns are wider than they need be, and these are few. */
async function refine(piece: Piece, { window, pixels }: Need, signal: AbortSignal): Promise<void> {
  const count = rawCount(piece, window, pixels);
  if (count === null) return;
  const { topics, since, until } = piece.question;
  const series = new Map<string, Series>();
  const page = await api.messages(topics, { since, limit: count + 100 }, signal);
  for (const message of page.messages) {
    if (message.time >= until && !piece.question.isOpen) break;
    if (message.encoding !== undefined) continue;
    eachNumber(message.payload, (field, value) => {
      const key = seriesKey(message.topic, field);
      const known = series.get(key) ?? new Series(message.topic, field);
      series.set(key, known);
      known.push(message.time, value);
    });
  }
  piece.raw = { series, position: page.position };
}

/** The line of a field of a topic, from wherever it is. */
export function lineFrom(
  { pieces, piece, store, isWhole }: Source,
  topic: string,
  field: Field,
  window: TimeWindow,
  pixels: number,
  now: number,
  gaps: readonly GapMark[],
): Line | null {
  const key = seriesKey(topic, field);
  const live = store.series.get(key);
  const { from, to } = window;
  if (isWhole) return live ? lineOfAll(live, from, to, pixels, now, gaps) : null;
  const best = piece ?? pieces.best(topic, field, window, now);
  if (best === null) return live ? lineOfAll(live, from, to, pixels, now, gaps) : null;
  const after = best.question.isOpen ? store.placeOf(best.raw?.position ?? best.positions.get(topic) ?? "") : null;
  const tail = live && after !== null ? { series: live, after } : null;
  const raw = best.raw?.series.get(key);
  if (raw) return lineOfAll(tail ? joined(raw, tail) : raw, from, to, pixels, now, gaps);
  const columns = best.series.get(key) ?? {
    ...emptyColumns(best.question.since, best.question.until, 1),
    ...gridOf(best),
  };
  return lineOf(columns, tail, from, to, now, gaps);
}

/** What a text was, from wherever it is. */
export function statesFrom({ pieces, piece, isWhole }: Source, live: States, window: TimeWindow, now: number): States {
  if (isWhole) return live;
  const best = piece ?? pieces.best(live.topic, live.field, window, now);
  const columns = best?.texts.get(seriesKey(live.topic, live.field));
  return columns ? live.behind(columns) : live;
}

/** Columns in which nothing is, as wide as those of the other lines. */
function gridOf(piece: Piece): Partial<Columns> {
  for (const { start, step } of piece.series.values()) return { start, step };
  return {};
}

/** Single readings of the past and those that came since. */
function joined(past: Series, { series, after }: { series: Series; after: number }): Series {
  const whole = past.snapshot();
  for (let index = 0; index < series.length; index++) {
    if (series.place(index) > after) whole.push(series.time(index), series.value(index));
  }
  return whole;
}

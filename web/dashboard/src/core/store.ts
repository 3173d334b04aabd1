/**
 * What a live view holds of its filter: messages to list, numbers to draw, losses to admit. Bounded in every direction.
 */
import { addLoss, type Losses } from "./losses.ts";
import { type GapMark, Series, seriesKey } from "./series.ts";
import { eachText, States } from "./states.ts";
import { compareNames } from "./tree.ts";
import { eachNumber, type Field, sortFields } from "./values.ts";

export interface StoredMessage {
  /** Counts arrivals in this view, from 1. */
  n: number;
  topic: string;
  payload: unknown;
  encoding?: string | undefined;
  time: number;
  seq: number;
  qos: number;
  retained: boolean;
  skipped: number;
  replayed: boolean;
  /** A rule of the gateway's is to make JSON of it, and can't. */
  isUnreadable: boolean;
}

/** A row of the message list: a message, or a loss between two of them. */
export type Row = { kind: "message"; message: StoredMessage } | { kind: "gap"; gap: GapMark; n: number };

interface Arrival {
  topic: string;
  payload: unknown;
  encoding?: string | undefined;
  time: number;
  seq: number;
  qos?: number | undefined;
  retained?: boolean | undefined;
  skipped?: number | undefined;
  decode?: "failed" | undefined;
}

interface TopicState {
  last: StoredMessage;
  /** The one before, to mark what changed; null when this is the first. */
  previous: StoredMessage | null;
  count: number;
  /** Different numbers that came. */
  numbers: number;
}

/** About how many characters a payload holds; exact enough to keep a ceiling. */
function roughSize(payload: unknown, left = 2000): number {
  if (typeof payload === "string") return payload.length;
  if (payload === null || typeof payload !== "object") return 8;
  let size = 16;
  for (const [key, value] of Object.entries(payload)) {
    size += key.length + roughSize(value, left - 1);
    if (--left <= 0) break;
  }
  return size;
}

export const LIMITS = { rows: 20_000, characters: 32_000_000, series: 3000, texts: 500, topics: 20_000 };

export class LiveStore {
  readonly series = new Map<string, Series>();
  readonly topics = new Map<string, TopicState>();
  private readonly texts = new Map<string, States>();
  /** How many numbers came for each field. */
  readonly fields = new Map<Field, number>();
  /** The newest losses, to be drawn. */
  readonly gaps: GapMark[] = [];
  /** All losses, added up. */
  losses: readonly Losses[] = [];
  private rows: Row[] = [];
  private sizes: number[] = [];
  private start = 0;
  private characters = 0;
  private arrivals = 0;
  private newest = 0;
  /** The highest number in the gateway's log, of its present life. */
  private newestSeq = 0;
  /** Where each life of the log begins among all that were seen here, by its name; the present one last. */
  private readonly lives = new Map<string, number>();
  private base = 0;
  private life: string | null = null;
  /** When a message came last for which others were left out, milliseconds since 1970; 0: never. */
  thinnedUntil = 0;
  skipped = 0;
  /** Messages in which there is no number. */
  numberless = 0;
  /** Numbers that belong to a series that there was no room for. */
  unplotted = 0;
  /** Whether a message had less than another one of its topic: one that is left out takes that along. */
  hasParts = false;
  /** Messages of topics beyond those that are told apart. */
  uncounted = 0;
  version = 0;

  /** @param limits lower ones for tests. */
  constructor(private readonly limits = LIMITS) {}

  get received(): number {
    return this.arrivals;
  }

  /** Messages that came or were left out on the way. */
  get arrived(): number {
    return this.arrivals + this.skipped;
  }

  /** Rows held, oldest first. */
  get length(): number {
    return this.rows.length - this.start;
  }

  row(index: number): Row | undefined {
    return this.rows[this.start + index];
  }

  /** Takes a message in; a last value that is here already, and is sent again after a loss, is not counted again. */
  note(arrival: Arrival, replayed = false): StoredMessage {
    const state = this.topics.get(arrival.topic);
    if (replayed && state?.last.seq === arrival.seq && state.last.time === arrival.time) return state.last;
    this.arrivals++;
    this.version++;
    const message: StoredMessage = {
      n: this.arrivals,
      topic: arrival.topic,
      payload: arrival.payload,
      encoding: arrival.encoding,
      time: arrival.time,
      seq: arrival.seq,
      qos: arrival.qos ?? 0,
      retained: arrival.retained ?? false,
      skipped: arrival.skipped ?? 0,
      replayed,
      isUnreadable: arrival.decode === "failed",
    };
    this.noteSkipped(message.skipped, message.time);
    const isNews = message.seq > this.newestSeq;
    this.newestSeq = Math.max(this.newestSeq, message.seq);
    this.newest = Math.max(this.newest, message.time);
    for (let index = this.gaps.length - 1; index >= 0; index--) {
      const gap = this.gaps[index];
      if (!gap || gap.to !== null || !isNews) break;
      gap.to = message.time;
      if (gap.from > gap.to) gap.from = gap.to;
    }
    this.push({ kind: "message", message }, 200 + roughSize(message.payload));

    if (state) {
      state.previous = state.last;
      state.last = message;
      state.count++;
    } else if (this.topics.size < this.limits.topics) {
      this.topics.set(message.topic, { last: message, previous: null, count: 1, numbers: 0 });
    } else this.uncounted++;
    if (arrival.encoding !== undefined || !this.plot(message)) this.numberless++;
    return message;
  }

  /** So many messages were left out before one of this time. */
  noteSkipped(count: number, time: number): void {
    this.skipped += count;
    if (count > 0) this.thinnedUntil = Math.max(this.thinnedUntil, time);
  }

  /** Fields whose texts are states, as they came up. */
  get states(): States[] {
    return [...this.texts.values()].filter(({ topic, field }) => this.isStated(topic, field));
  }

  /** Whether a field of a topic has states rather than numbers, among which a text says that there is none. */
  isStated(topic: string, field: Field): boolean {
    const key = seriesKey(topic, field);
    return this.texts.get(key)?.isState === true && this.series.get(key)?.isNumber !== true;
  }

  private plot(message: StoredMessage): boolean {
    eachText(message.payload, (field, text) => {
      const key = seriesKey(message.topic, field);
      let states = this.texts.get(key);
      if (!states) {
        if (this.texts.size >= this.limits.texts) return;
        states = new States(message.topic, field);
        this.texts.set(key, states);
      }
      states.note(message.time, text);
    });
    const topic = this.topics.get(message.topic);
    let found = 0;
    eachNumber(message.payload, (field, value) => {
      found++;
      const key = seriesKey(message.topic, field);
      let series = this.series.get(key);
      if (!series) {
        if (this.series.size >= this.limits.series) {
          this.unplotted++;
          return;
        }
        series = new Series(message.topic, field);
        this.series.set(key, series);
        if (topic) topic.numbers++;
      }
      this.fields.set(field, (this.fields.get(field) ?? 0) + 1);
      series.push(message.time, value, this.base + message.seq);
    });
    if (found > 0 && topic && found < topic.numbers) this.hasParts = true;
    return found > 0;
  }

  /** A loss, between the newest message that is here and the next one to come. */
  noteGap(reason: string, lost: number | null, now: number): void {
    const gap: GapMark = { from: this.newest || now, to: null, reason, lost };
    if (reason === "epoch") this.beginLife();
    this.losses = addLoss(this.losses, reason, lost);
    this.gaps.push(gap);
    if (this.gaps.length > 500) this.gaps.shift();
    this.push({ kind: "gap", gap, n: this.arrivals }, 100);
    this.version++;
  }

  /** A gateway that was restarted without an archive counts anew. */
  private beginLife(): void {
    this.base += this.newestSeq;
    this.newestSeq = 0;
  }

  /** The gateway told which life its log is in. */
  noteLife(name: string): void {
    if (this.life !== null && this.life !== name) this.beginLife();
    this.life = name;
    this.lives.set(name, this.base);
  }

  /** The place of a position among all messages here; null when nothing was heard of its life of the log. */
  placeOf(position: string): number | null {
    const [name = "", seq] = position.split(":");
    const base = this.lives.get(name);
    return base === undefined ? null : base + Number(seq);
  }

  private push(row: Row, size: number): void {
    this.rows.push(row);
    this.sizes.push(size);
    this.characters += size;
    while (this.length > this.limits.rows || (this.characters > this.limits.characters && this.length > 1)) {
      this.characters -= this.sizes[this.start] ?? 0;
      this.start++;
    }
    if (this.start > 4096 && this.start > this.rows.length / 2) {
      this.rows = this.rows.slice(this.start);
      this.sizes = this.sizes.slice(this.start);
      this.start = 0;
    }
  }

  /**
   * What is here now, whatever comes or goes after: for a picture that stands still.
   *
   * @param until messages after this time (milliseconds since 1970) are left out of the list.
   */
  snapshot(until = Number.POSITIVE_INFINITY): LiveStore {
    const copy = new LiveStore(this.limits);
    for (const [key, series] of this.series) copy.series.set(key, series.snapshot());
    for (const [key, states] of this.texts) copy.texts.set(key, states.snapshot());
    for (const [topic, state] of this.topics) copy.topics.set(topic, { ...state });
    for (const [field, count] of this.fields) copy.fields.set(field, count);
    copy.gaps.push(...this.gaps.map((gap) => ({ ...gap })));
    copy.losses = this.losses;
    copy.base = this.base;
    copy.life = this.life;
    for (const [name, base] of this.lives) copy.lives.set(name, base);
    copy.thinnedUntil = this.thinnedUntil;
    copy.rows = this.rows.slice(this.start);
    while (copy.rows.length > 0) {
      const row = copy.rows[copy.rows.length - 1];
      if (!row || (row.kind === "message" ? row.message.time : row.gap.from) <= until) break;
      copy.rows.pop();
    }
    copy.arrivals = this.arrivals - (this.length - copy.rows.length);
    copy.skipped = this.skipped;
    copy.numberless = this.numberless;
    copy.unplotted = this.unplotted;
    copy.uncounted = this.uncounted;
    return copy;
  }

  /** The message with this number in the gateway's log, null where it isn't held. */
  find(seq: number): StoredMessage | null {
    for (let index = this.length - 1; index >= 0; index--) {
      const row = this.row(index);
      if (row?.kind === "message" && row.message.seq === seq) return row.message;
    }
    return null;
  }

  /** How many rows belong to the first `n` arrivals. */
  lengthUntil(n: number): number {
    let low = this.start;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const row = this.rows[middle];
      const at = row === undefined ? 0 : row.kind === "message" ? row.message.n : row.n;
      if (at <= n) low = middle + 1;
      else high = middle;
    }
    return low - this.start;
  }

  /** The newest message of the same topic before this one that is still held, to mark what changed. */
  before(message: StoredMessage): StoredMessage | null {
    for (let index = this.lengthUntil(message.n) - 1; index >= 0; index--) {
      const row = this.row(index);
      if (row?.kind === "message" && row.message.n < message.n && row.message.topic === message.topic)
        return row.message;
    }
    return null;
  }

  /** The series of a field, in order of topic. */
  seriesOf(field: Field): Series[] {
    const found: Series[] = [];
    for (const series of this.series.values()) if (series.field === field) found.push(series);
    return found.sort((a, b) => (a.topic < b.topic ? -1 : a.topic > b.topic ? 1 : 0));
  }
}

/**
 * Fields in the order in which a view offers them: what keeps coming before what came once or twice (limits in a meta
 * message are numbers too), then by what people look for.
 */
export function offeredFields(store: LiveStore): Field[] {
  const drawn = new Set<Field>();
  for (const { topic, field } of store.series.values()) if (!store.isStated(topic, field)) drawn.add(field);
  const most = Math.max(0, ...store.fields.values());
  const rare = (field: Field) => (store.fields.get(field) ?? 0) * 5 < most;
  const sorted = sortFields([...store.fields.keys()].filter((field) => drawn.has(field) || store.unplotted > 0));
  return [...sorted.filter((field) => !rare(field)), ...sorted.filter(rare)];
}

/** The oldest moment that anything here is from, null while nothing is. */
export function oldestTime(store: LiveStore): number | null {
  let oldest: number | null = null;
  for (const series of store.series.values()) {
    if (series.length > 0 && (oldest === null || series.time(0) < oldest)) oldest = series.time(0);
  }
  return oldest;
}

/**
 * Topics in a stable order: those that are new come after those that are known, by name.
 *
 * @param isEarly everything is still new: all are put in the order of names.
 */
export function withNewcomers(
  known: readonly string[],
  topics: readonly string[],
  isEarly: boolean,
): readonly string[] {
  const seen = new Set(known);
  const fresh = topics.filter((topic) => !seen.has(topic));
  if (fresh.length === 0) return known;
  return isEarly ? [...known, ...fresh].sort(compareNames) : [...known, ...fresh.sort(compareNames)];
}

export interface Threshold {
  field: Field;
  above: boolean;
  value: number;
}

const THRESHOLD = /^(.*)([<>])(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)$/i;

/** "temperature>30" as it stands in an address; null when it is something else. */
export function parseThreshold(text: string): Threshold | null {
  const match = THRESHOLD.exec(text);
  if (!match) return null;
  return { field: match[1] ?? "", above: match[2] === ">", value: Number(match[3]) };
}

export function thresholdText(threshold: Threshold): string {
  return `${threshold.field}${threshold.above ? ">" : "<"}${threshold.value}`;
}

export function crosses(threshold: Threshold, value: number): boolean {
  return threshold.above ? value > threshold.value : value < threshold.value;
}

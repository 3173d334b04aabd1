/**
 * The tree of topics, made for 100,000 of them and thousands of messages a second.
 *
 * A message touches one node for each of its levels and nothing else; order and visible rows are worked out only when
 * they are asked for, and only for the open branches.
 *
 * Counts are the gateway's: its list has them as of the position at which the page subscribed, and what comes behind
 * that position is added. Until the list has come, and where there is none, they are what came here.
 */
import { Flow, Rhythm } from "./rhythm.ts";
import { holdsAll, wordsOf } from "./search.ts";

/** Characters of a payload's text that are searched. */
const SEARCHED = 10_000;

export class TopicNode {
  children: Map<string, TopicNode> | null = null;
  private order: TopicNode[] | null = null;
  /** Messages of this topic and all below it. */
  count = 0;
  /** Topics (not levels) at or below this node. */
  topics = 0;
  /** Its own messages. */
  own = 0;
  /** Those of its own that came behind the position of the tree's mark, and which mark that was. */
  fresh = 0;
  mark = 0;
  /** The mark whose list had it last. */
  listed = 0;
  /** Messages a second, as the gateway's list had it. */
  listedRate = 0;
  /** False for a level that is only on the way. */
  isTopic = false;
  /** Whether its newest value has come. */
  hasValue = false;
  /** The number of its newest message, and in which life of the gateway's log. */
  seq = 0;
  life = 0;
  payload: unknown;
  encoding: string | undefined;
  time = 0;
  retained = false;
  /** Whether the broker keeps one of its messages, as far as it was told. */
  kept = false;
  open = false;
  /** What comes below it. */
  flow: Flow | null = null;
  rhythm: Rhythm | null = null;
  private searchedPayload: unknown;
  private searched = "";

  constructor(
    readonly name: string,
    readonly path: string,
    readonly parent: TopicNode | null,
    readonly depth: number,
  ) {}

  child(name: string): TopicNode {
    this.children ??= new Map();
    let node = this.children.get(name);
    if (!node) {
      const path = this.parent === null ? name : `${this.path}/${name}`;
      node = new TopicNode(name, path, this, this.depth + 1);
      this.children.set(name, node);
      this.order = null;
    }
    return node;
  }

  drop(child: TopicNode): void {
    this.children?.delete(child.name);
    if (this.children?.size === 0) this.children = null;
    this.order = null;
  }

  sorted(): TopicNode[] {
    if (!this.children) return [];
    this.order ??= [...this.children.values()].sort((a, b) => compareNames(a.name, b.name));
    return this.order;
  }

  /** Messages a second: by its rhythm for a topic (steady between reports), by counting for a branch. */
  perSecond(now: number): number {
    return this.children ? (this.flow?.read(now) ?? 0) : this.ownPerSecond(now);
  }

  /** Its own messages a second: by its rhythm, or while that isn't known as the gateway's list has it. */
  ownPerSecond(now: number): number {
    const listed = this.listedRate > 0 ? 1000 / this.listedRate : null;
    const interval = this.rhythm?.learnt ? this.rhythm.interval : (listed ?? this.rhythm?.interval ?? null);
    if (!interval) return 0;
    const silent = Math.max(0, now - this.time);
    if (silent > 20 * interval + 60_000) return 0;
    // Messages are thinned on their way here: a second or two of silence says nothing yet.
    return 1000 / (silent > Math.max(2 * interval, 3000) ? silent : interval);
  }

  /** Its payload as text in lower case, kept until another one comes; "" for bytes. */
  get searchText(): string {
    if (!this.hasValue || this.encoding !== undefined) return "";
    if (this.searched === "" || this.searchedPayload !== this.payload) {
      this.searchedPayload = this.payload;
      this.searched = payloadText(this.payload).slice(0, SEARCHED).toLowerCase();
    }
    return this.searched;
  }
}

/** A payload as text: a text as it came, JSON in one line. */
export const payloadText = (payload: unknown): string =>
  typeof payload === "string" ? payload : (JSON.stringify(payload) ?? "");

const digits = /^\d+$/;

/** By name, numbers by value: node-2 before node-10. localeCompare with `numeric` is fifty times slower. */
export function compareNames(a: string, b: string): number {
  const partsA = a.split(/(\d+)/);
  const partsB = b.split(/(\d+)/);
  const shared = Math.min(partsA.length, partsB.length);
  for (let index = 0; index < shared; index++) {
    const x = partsA[index] ?? "";
    const y = partsB[index] ?? "";
    if (x === y) continue;
    if (digits.test(x) && digits.test(y)) {
      const difference = Number(x) - Number(y);
      if (difference !== 0) return difference;
    }
    return x < y ? -1 : 1;
  }
  return partsA.length - partsB.length || (a < b ? -1 : a > b ? 1 : 0);
}

interface TreeMessage {
  topic: string;
  payload: unknown;
  time: number;
  seq: number;
  encoding?: string | undefined;
  retained?: boolean | undefined;
  skipped?: number | undefined;
}

/** A topic as the gateway's list has it. */
export interface Listed {
  topic: string;
  /** Messages since the gateway started. */
  count: number;
  /** Messages a second over what is kept. */
  rate: number;
  /** Of the newest message, milliseconds since 1970. */
  time: number;
  /** It is the empty one that took away what the broker kept. */
  cleared?: boolean;
}

/** Rows that are opened by themselves at most. */
const FITS = 60;
/** With so few names at the top, their levels are opened however many there are. */
const FEW = 3;

export class TopicTree {
  readonly root = new TopicNode("", "", null, -1);
  private readonly nodes = new Map<string, TopicNode>();
  /** Topics that were cleared, and of which nothing has come since. */
  private readonly cleared = new Set<string>();
  private epoch: string | undefined;
  private life = 0;
  /** Counts up with each position from which on messages are added to the gateway's counts, and that position's number. */
  private mark = 0;
  private markSeq = 0;
  /** Whether all topics are here that there were: what is shown from now on moves only for new ones. */
  isWhole = false;
  /** Whether counts are the gateway's, and not of what came here. */
  isCounted = false;
  /** Grows whenever a row may have been added, opened or closed. */
  version = 0;

  get size(): number {
    return this.nodes.size;
  }

  get(topic: string): TopicNode | undefined {
    return this.nodes.get(topic);
  }

  /** A node by its path, a level on the way as well; undefined when it isn't there. */
  find(path: string): TopicNode | undefined {
    let node: TopicNode | undefined = this.root;
    for (const level of path.split("/")) node = node?.children?.get(level);
    return node;
  }

  /** The page is subscribed from this position on; the list that is asked for now counts up to it. */
  begin(position: string): void {
    const [epoch, seq] = position.split(":");
    if (epoch !== this.epoch) this.life++;
    this.epoch = epoch;
    this.mark++;
    this.markSeq = Number(seq);
  }

  private place(topic: string): TopicNode {
    let node = this.nodes.get(topic);
    if (node) return node;
    node = this.root;
    for (const level of topic.split("/")) node = node.child(level);
    this.nodes.set(topic, node);
    node.isTopic = true;
    for (let up: TopicNode | null = node; up; up = up.parent) up.topics++;
    this.version++;
    return node;
  }

  private freshOf(node: TopicNode): number {
    return node.mark === this.mark ? node.fresh : 0;
  }

  private setOwn(node: TopicNode, own: number): void {
    const more = own - node.own;
    if (more === 0) return;
    node.own = own;
    for (let up: TopicNode | null = node; up; up = up.parent) up.count += more;
  }

  /** Takes in a page of the gateway's list. */
  list(page: readonly Listed[]): void {
    for (const { topic, count, rate, time, cleared } of page) {
      const known = this.nodes.get(topic);
      // what came behind the list's position may be news of it
      if (cleared && !(known && this.freshOf(known) > 0)) {
        this.clear(topic);
        continue;
      }
      const node = known ?? this.place(topic);
      node.listed = this.mark;
      node.listedRate = rate;
      node.time = Math.max(node.time, time);
      this.setOwn(node, count + this.freshOf(node));
    }
  }

  /**
   * The list has come to its end, or there is none.
   *
   * @param now the moment to which its rates belong, by the gateway's clock; null where there is no list.
   */
  settle(now: number | null): void {
    if (now !== null) {
      const rates = new Map<TopicNode, number>([[this.root, 0]]);
      for (const node of this.nodes.values()) {
        if (node.listed !== this.mark) this.setOwn(node, this.freshOf(node));
        for (let up: TopicNode | null = node; up; up = up.parent) {
          if (up.children) rates.set(up, (rates.get(up) ?? 0) + node.listedRate);
        }
      }
      for (const [node, rate] of rates) {
        node.flow ??= new Flow();
        node.flow.seed(now, rate);
      }
      this.isCounted = true;
    }
    if (this.isWhole) return;
    this.isWhole = true;
    this.openSmall();
    this.version++;
  }

  /** Opens what fits, level by level: a tree of three devices has nothing to hide. */
  private openSmall(): void {
    let level = this.root.sorted();
    let rows = level.length;
    const isFew = rows <= FEW;
    while (level.length > 0) {
      const next: TopicNode[] = [];
      for (const node of level) {
        const below = node.children?.size ?? 0;
        if (below === 0 || (rows + below > FITS && !(isFew && node.depth === 0))) continue;
        rows += below;
        this.setOpen(node, true);
        next.push(...node.sorted());
      }
      level = next;
    }
  }

  /**
   * Takes in a message; one that is known already (replayed when a view is opened again) changes nothing.
   *
   * @param replayed it says what is there, not what is going on: counted only when it came after one that is known.
   */
  note(message: TreeMessage, replayed = false): TopicNode | null {
    const isEmpty = message.payload === "" && message.encoding === undefined;
    if (this.cleared.size > 0 && this.cleared.has(message.topic)) {
      if (isEmpty) return null;
      this.cleared.delete(message.topic);
    }
    const node = this.place(message.topic);
    const isSameLife = node.life === this.life;
    if (node.hasValue && isSameLife && message.seq <= node.seq) return node;
    const counted = !replayed || (node.hasValue && isSameLife);
    node.hasValue = true;
    node.seq = message.seq;
    node.life = this.life;
    node.payload = message.payload;
    node.encoding = message.encoding;
    node.time = message.time;
    node.retained = message.retained ?? false;
    if (node.kept && isEmpty) {
      this.clear(node.path);
      return null;
    }
    node.kept ||= node.retained;
    const stands = 1 + (message.skipped ?? 0);
    node.rhythm ??= new Rhythm();
    node.rhythm.note(message.time, stands);
    if (!counted) return node;
    if (message.seq > this.markSeq) {
      node.fresh = this.freshOf(node) + stands;
      node.mark = this.mark;
    } else if (node.listed === this.mark) return node; // what was missed came behind the list, which has counted it
    this.setOwn(node, node.own + stands);
    // What was missed while the connection was cut came long ago, and all at once.
    if (replayed) return node;
    for (let up: TopicNode | null = node; up; up = up.parent) {
      if (!up.children) continue;
      up.flow ??= new Flow();
      up.flow.note(message.time, stands);
    }
    return node;
  }

  /** Takes a topic away, and the levels that led to it alone; those below it stay. */
  private remove(node: TopicNode): void {
    this.nodes.delete(node.path);
    this.setOwn(node, 0);
    node.isTopic = node.hasValue = node.kept = false;
    node.payload = undefined;
    node.listedRate = 0;
    for (let up: TopicNode | null = node; up; up = up.parent) {
      up.topics--;
      if (up.parent && up.topics === 0) up.parent.drop(up);
    }
    this.version++;
  }

  /** A topic of which the broker keeps nothing any more: it isn't shown until something comes. */
  clear(topic: string): void {
    this.cleared.add(topic);
    const node = this.nodes.get(topic);
    if (node) this.remove(node);
  }

  setOpen(node: TopicNode, open: boolean): void {
    if (!node.children || node.open === open) return;
    node.open = open;
    this.version++;
  }

  /** Opens the way to a path and gives its node; undefined when it isn't there. */
  reveal(path: string): TopicNode | undefined {
    let node: TopicNode = this.root;
    const way: TopicNode[] = [];
    for (const level of path.split("/")) {
      const next = node.children?.get(level);
      if (!next) return undefined;
      way.push(next);
      node = next;
    }
    for (const step of way.slice(0, -1)) this.setOpen(step, true);
    return node;
  }

  /** The rows to show, top to bottom. */
  rows(): TopicNode[] {
    const rows: TopicNode[] = [];
    const walk = (node: TopicNode): void => {
      for (const child of node.sorted()) {
        rows.push(child);
        if (child.open) walk(child);
      }
    };
    walk(this.root);
    return rows;
  }

  /** Topics that hold every word of `query` in their name or value, in any case, in order of name; at most `limit`. */
  search(query: string, limit = Number.POSITIVE_INFINITY): TopicNode[] {
    const words = wordsOf(query);
    const found: TopicNode[] = [];
    if (words.length === 0) return found;
    for (const [topic, node] of this.nodes) {
      if (holdsAll(words, topic.toLowerCase(), () => node.searchText)) found.push(node);
      if (found.length >= limit) break;
    }
    return found.length > 20_000 ? found : found.sort((a, b) => compareNames(a.path, b.path));
  }
}

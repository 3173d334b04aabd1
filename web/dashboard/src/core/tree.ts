/**
 * The tree of topics, made for 100,000 of them and thousands of messages a second.
 *
 * A message touches one node for each of its levels and nothing else; order and visible rows are worked out only when
 * they are asked for, and only for the open branches.
 */
import { Rate, Rhythm } from "./rhythm.ts";

export class TopicNode {
  children: Map<string, TopicNode> | null = null;
  private order: TopicNode[] | null = null;
  /** Messages of this topic and all below it since the page opened. */
  count = 0;
  /** Topics (not levels) at or below this node. */
  topics = 0;
  /** Its own messages since the page opened. */
  own = 0;
  /** False for a level that is only on the way. */
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
  readonly rate = new Rate(10);
  rhythm: Rhythm | null = null;

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
    if (!this.children && this.rhythm?.interval) {
      const silent = this.rhythm.lastTime === null ? 0 : now - this.rhythm.lastTime;
      const interval = this.rhythm.interval;
      if (silent > 20 * interval + 60_000) return 0;
      // Messages are thinned on their way here: a second or two of silence says nothing yet.
      return 1000 / (silent > Math.max(2 * interval, 3000) ? silent : interval);
    }
    return this.rate.read(now);
  }
}

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

export interface TreeMessage {
  topic: string;
  payload: unknown;
  time: number;
  seq: number;
  encoding?: string | undefined;
  retained?: boolean | undefined;
  skipped?: number | undefined;
}

export class TopicTree {
  readonly root = new TopicNode("", "", null, -1);
  private readonly nodes = new Map<string, TopicNode>();
  /** Topics that were cleared, and of which nothing has come since. */
  private readonly cleared = new Set<string>();
  private epoch: string | undefined;
  private life = 0;
  /** Grows whenever a row may have been added, opened or closed. */
  version = 0;

  get size(): number {
    return this.nodes.size;
  }

  get(topic: string): TopicNode | undefined {
    return this.nodes.get(topic);
  }

  /** The gateway began a new log: its numbers begin anew. */
  beginLife(epoch: string | undefined): void {
    if (epoch === this.epoch) return;
    this.epoch = epoch;
    this.life++;
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
    let node = this.nodes.get(message.topic);
    if (!node) {
      node = this.root;
      for (const level of message.topic.split("/")) node = node.child(level);
      this.nodes.set(message.topic, node);
      for (let up: TopicNode | null = node; up; up = up.parent) up.topics++;
      this.version++;
    }
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
    node.own += stands;
    for (let up: TopicNode | null = node; up; up = up.parent) {
      up.count += stands;
      // What was missed while the connection was cut came long ago, and all at once.
      if (!replayed) up.rate.note(message.time, stands);
    }
    return node;
  }

  /** Takes a topic away, and the levels that led to it alone; those below it stay. */
  private remove(node: TopicNode): void {
    this.nodes.delete(node.path);
    node.hasValue = node.kept = false;
    node.payload = undefined;
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

  /** Topics whose name holds every word of `query`, in any case, in order of name; at most `limit`. */
  search(query: string, limit = Number.POSITIVE_INFINITY): TopicNode[] {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const found: TopicNode[] = [];
    if (words.length === 0) return found;
    for (const [topic, node] of this.nodes) {
      const name = topic.toLowerCase();
      if (words.every((word) => name.includes(word))) found.push(node);
      if (found.length >= limit) break;
    }
    return found.length > 20_000 ? found : found.sort((a, b) => compareNames(a.path, b.path));
  }
}

/**
 * A connection that comes back, and goes on where it was.
 *
 * It is long because one state is behind all it does: the socket, what is subscribed, and the position of each.
 */

import { failure, type Handler, makeEvents, run } from "./events.js";
import { check, checkRanges, checkSince, list } from "./options.js";
import type { CLOSE_CODES, Command, EventName } from "./protocol.js";
import { matches } from "./topics.js";
import type {
  Live,
  LiveError,
  Message,
  Options,
  PublishOptions,
  SocketClass,
  State,
  StateChange,
  SubscribeOptions,
  Subscription,
} from "./types.js";

/** A frame of the gateway: a message, or an event with what belongs to it. */
interface Frame extends Omit<Message<never>, "topic"> {
  topic: string;
  topics: string[];
  event?: EventName;
  id: number;
  code: string;
  message: string;
  reason?: string;
  position?: string;
  from?: number;
  recovered?: boolean;
  connected?: boolean;
}

/** A command and who waits for its answer. */
interface Call {
  text: string;
  isSent?: boolean;
  entry: Entry | undefined;
  resolve(answer: Frame): void;
  reject(error: LiveError): void;
}

/** Filters that were subscribed to together, and how far they have been read. */
interface Entry {
  id: number;
  topics: string[];
  levels: string[][];
  /** What to ask for when the gateway is asked next. */
  since: string;
  /** Every message beyond it has come, up to where it was asked from now; Infinity before the first answer. */
  from: number;
  /** Every message beyond it comes: with its replay, for an earlier subscription, or live. */
  asked: number;
  /** The last message of its replay; 0 before the first. */
  seq: number;
  /** Where its replay ends; Infinity until the gateway has said so. */
  head: number;
  /** Its replay has come whole. */
  isWhole?: boolean;
  /** It was asked for before another one was left, whose messages on their way are counted as its own. */
  isHeir?: boolean;
  onMessage: Handler | undefined;
  resolve(answer: Subscription): void;
  reject(error: LiveError): void;
}

type Timer = ReturnType<typeof setTimeout> | undefined;

const SECOND = 1000;
/** A timer that comes later than this was held up: the tab was frozen, the machine slept. */
const LATE = 2 * SECOND;
/** A tab that is hidden for less goes on as if it were shown. */
const HIDE_DELAY = 5 * SECOND;
/** What woke up asks whether its connection is still there, and doesn't wait for long. */
const WAKE_DEADLINE = 3 * SECOND;
/** After a connection that lived for so long the delays start from the beginning. */
const SETTLED = 10 * SECOND;

// their types are the table's: numbers cost a page less than the table
const BUSY: typeof CLOSE_CODES.BUSY = 1013;
const UNAUTHORIZED: typeof CLOSE_CODES.UNAUTHORIZED = 4001;
const TOKEN_EXPIRED: typeof CLOSE_CODES.TOKEN_EXPIRED = 4005;
const TOKEN_REFUSED: number[] = [UNAUTHORIZED, TOKEN_EXPIRED];
/** Why a token was refused that may be good. */
const NOT_NOW = ["failed_tokens", "keys_unavailable"];

/** Whether a connection that ended with this code may be opened again (docs/protocol.md). */
export const comesBack = (code: number) => code > 4099 || [1001, 1005, 1006, 1011, 1012, 1013, 1014].includes(code);

/**
 * Opens a connection to the gateway and keeps it.
 *
 * @param url where the gateway's `/ws` is, absolute or relative to the page; http and https do as well as ws and wss
 */
export function connect<Payload = unknown>(url: string | URL = "ws", options: Options = {}): Live<Payload> {
  checkRanges(options);
  checkSince(options.since);
  const topics = list(options.topics);
  const { WebSocket: Socket = globalThis.WebSocket } = options;
  const rule = "a class; where none is built in, that of the package ws";
  check(typeof Socket === "function", "WebSocket", Socket, rule);
  const { token, silence = 15, timeout = 10, maxDelay = 30, hiddenHz = 0.2 } = options;
  const { mode, fields, deadband, where, properties } = options;
  const page = typeof document === "object" ? document : undefined;
  const address = new URL(url, page?.baseURI ?? globalThis.location?.href);
  address.protocol = address.protocol.replace("http", "ws");
  const ending = new AbortController();

  const { emit, on, iterate, finish } = makeEvents<Payload>(options.buffer);
  const calls = new Map<number, Call>();
  let entries: Entry[] = [];
  let socket: InstanceType<SocketClass> | undefined;
  let state: State = "connecting";
  let epoch = "";
  let newest = 0;
  /** The last message of those that came live, for all subscriptions whose replay is done. */
  let reached = 0;
  let rate = options.maxHz ?? Infinity;
  let isHidden = false;
  let turn = 0;
  let lastId = 0;
  let attempt = 0;
  let openedAt = 0;
  let isFirst = false;
  let isBrokerAway = false;
  let heardAt = 0;
  let unanswered = 0;
  let retryTimer: Timer;
  let watchTimer: Timer;
  let hideTimer: Timer;

  // Events

  const report = (error: LiveError) => {
    if (error.code !== "closed") emit("error", error);
  };

  const become = (next: State, more?: Omit<StateChange, "state">) => {
    state = next;
    emit("state", { state, ...more });
  };

  // Commands

  const transmit = (call: Call) => {
    call.isSent = true;
    socket?.send(call.text);
  };

  /** Sends a command as soon as the connection is open; `isEarly` ones are those that open it. */
  const send = (command: Command, isEarly?: boolean, entry?: Entry) =>
    new Promise<Frame>((resolve, reject) => {
      if (state === "closed") return reject(failure("closed", "the connection is closed"));
      const id = ++lastId;
      const call: Call = { text: JSON.stringify({ ...command, id }), entry, resolve, reject };
      calls.set(id, call);
      if (entry) entry.id = id;
      if (isEarly || state === "open") transmit(call);
      // a subscription may take its time: a connection that is dead is noticed by `watch`
      if (!entry) {
        setTimeout(() => {
          if (calls.delete(id)) reject(failure("timeout", `no answer within ${timeout} s`));
        }, timeout * SECOND);
      }
    });

  const authenticate = async (secret: string | undefined) => {
    if (secret) await send({ command: "authenticate", token: secret }, true);
  };

  const fetchToken = async () => {
    try {
      return typeof token === "function" ? await token() : token;
    } catch (error) {
      throw failure("token", String(error));
    }
  };

  // Subscriptions

  /** Infinity is null in JSON, and null takes a limit away. */
  const pace = () => ({ max_hz: Math.min(rate, isHidden ? hiddenHz : rate) });

  const request = (entry: Entry) => {
    const { topics, since } = entry;
    const shape = { mode, fields, deadband, where, properties, ...pace() };
    send({ command: "subscribe", topics, since, ...shape }, true, entry).then(
      ({ position = "", recovered = true }) => {
        entry.resolve({ topics, position, recovered, unsubscribe: () => leave(entry.topics, entry) });
        entry.reject = report;
      },
      (error) => {
        // that a connection ended says nothing about the filters
        if (error.code === "disconnected") return;
        entries = entries.filter((other) => other !== entry);
        entry.reject(error);
      },
    );
  };

  const subscribe = (topics: string | readonly string[], { since = "last", onMessage }: SubscribeOptions<never> = {}) =>
    new Promise<Subscription>((resolve, reject) => {
      checkSince(since);
      const filters = list(topics);
      if (state === "closed") return reject(failure("closed", "the connection is closed"));
      const entry: Entry = {
        topics: [],
        levels: [],
        since,
        id: 0,
        from: Infinity,
        asked: Infinity,
        seq: 0,
        head: Infinity,
        onMessage,
        resolve,
        reject,
      };
      setTopics(entry, filters);
      entries.push(entry);
      finish();
      if (state === "open") request(entry);
    });

  const setTopics = (entry: Entry, topics: string[]) => {
    entry.topics = topics;
    entry.levels = topics.map((topic) => topic.split("/"));
  };

  const forget = (topics: string[], only?: Entry) => {
    for (const entry of entries) {
      if (!only || entry === only) {
        setTopics(
          entry,
          entry.topics.filter((topic) => !topics.includes(topic)),
        );
      }
    }
    dropLeft();
  };

  /** One that was left in the middle of its replay stays until that has ended: others may have a part in it. */
  const dropLeft = () => {
    entries = entries.filter((entry) => entry.topics.length || (state === "open" && !entry.isWhole));
  };

  const leave = async (topics: string[], only?: Entry) => {
    forget(topics, only);
    const gone = topics.filter((topic) => !entries.some((entry) => entry.topics.includes(topic)));
    if (gone.length && state === "open") {
      for (const entry of entries) entry.isHeir ||= entry.head === Infinity;
      await send({ command: "unsubscribe", topics: gone }).catch((error) => {
        // what ends the connection ends its filters
        if (error.code !== "disconnected") throw error;
      });
    }
  };

  /**
   * How far these filters have been read, 0 if that isn't known. The gateway replays one subscription after the other, each in
   * the order of the numbers, says when it is done, and only then goes on with all of them together.
   */
  const readTo = ({ isWhole, head, seq }: Entry) => (isWhole ? Math.max(head, reached) : seq);

  // What arrives

  const deliver = (message: Message<never>) => {
    const { seq, topic } = message;
    const levels = topic.split("/");
    const wanted = entries.filter((entry) => entry.levels.some((filter) => matches(filter, levels)));
    // none: it was on its way already when its filter was unsubscribed
    if (!wanted.some((entry) => entry.head < Infinity || entry.isHeir || seq > entry.asked)) return;
    const current = entries.find((entry) => !entry.isWhole);
    const isLive = wanted.find((entry) => entry.head < Infinity && seq > entry.asked)?.isWhole;
    if (!isLive && current && current.head < Infinity) current.seq = seq;
    else reached = seq;
    newest = Math.max(newest, seq);
    // it came before the connection was lost, for another subscription than that which asks for it now
    if (!mode && wanted.some((entry) => seq > entry.from && seq <= entry.asked)) return;
    emit("message", message);
    for (const { onMessage } of wanted) run(onMessage, message);
  };

  const hear = (event: EventName, frame: Frame) => {
    const { id, position = "" } = frame;
    const call = calls.get(id);
    calls.delete(id);
    if (event === "error") {
      (call?.reject ?? report)(failure(frame.code, frame.message, frame.reason));
      return;
    }
    if (event === "replayed") {
      for (const entry of entries) entry.isWhole ||= entry.id === id;
      dropLeft();
      return;
    }
    if (call?.entry) {
      const { entry } = call;
      const [name = "", seq] = position.split(":");
      if (name !== epoch) {
        newest = reached = 0;
        for (const other of entries) other.from = Infinity;
      }
      epoch = name;
      entry.head = Number(seq);
      entry.asked = frame.from ?? entry.head;
      // a time back is another one now
      entry.from = entry.since.startsWith(`${name}:`) ? Math.min(entry.from, entry.asked) : entry.asked;
      entry.isWhole = entry.since === "now";
    }
    // a new token doesn't grant them any more
    if (event === "unsubscribed" && !call) forget(frame.topics);
    call?.resolve(frame);
    if (event === "expiring" && typeof token === "function") fetchToken().then(authenticate).catch(report);
    emit(event, frame);
  };

  const receive = (text: string) => {
    heardAt = performance.now();
    unanswered = 0;
    const frame: Frame = JSON.parse(text);
    // a gateway without its broker says so first of all, and otherwise says nothing
    if (isFirst && isBrokerAway && frame.event !== "upstream") emit("upstream", { event: "upstream", connected: true });
    if (isFirst || frame.event === "upstream") isBrokerAway = frame.event === "upstream" && !frame.connected;
    isFirst = false;
    if (frame.event) hear(frame.event, frame);
    else deliver(frame);
  };

  // The connection

  const open = async () => {
    const mine = ++turn;
    clearTimeout(retryTimer);
    become("connecting");
    let secret: string | undefined;
    try {
      secret = await fetchToken();
    } catch (error) {
      report(error as LiveError);
      if (mine === turn) lose(1006, "no token");
    }
    if (mine !== turn || state !== "connecting") return;
    let opened: InstanceType<SocketClass>;
    try {
      opened = new Socket(address);
    } catch (error) {
      // mixed content, a content security policy: no attempt will be better
      report(failure("blocked", String(error)));
      return end(1006, "blocked");
    }
    socket = opened;
    opened.onmessage = ({ data }: MessageEvent) => receive(data);
    opened.onclose = ({ code, reason }: CloseEvent) => lose(code, reason);
    // a close follows; outside of browsers an error that nobody hears ends the program
    opened.onerror = () => {};
    opened.onopen = async () => {
      openedAt = performance.now();
      isFirst = true;
      try {
        await authenticate(secret);
      } catch (error) {
        if (opened !== socket) return;
        const { message, reason = "" } = error as LiveError;
        report(error as LiveError);
        return lose(NOT_NOW.includes(reason) ? BUSY : UNAUTHORIZED, message);
      }
      if (opened !== socket) return;
      for (const entry of entries) request(entry);
      become("open");
      for (const call of calls.values()) if (!call.isSent) transmit(call);
    };
    watch(timeout * SECOND);
  };

  const detach = () => {
    turn++;
    clearTimeout(retryTimer);
    clearTimeout(watchTimer);
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
      socket = undefined;
    }
    entries = entries.filter((entry) => entry.topics.length);
    for (const entry of entries) {
      const last = readTo(entry);
      if (last) {
        entry.since = `${epoch}:${last}`;
        entry.asked = last;
      }
      entry.seq = 0;
      entry.head = Infinity;
      entry.isWhole = entry.isHeir = false;
    }
    for (const [id, call] of calls) {
      if (call.isSent) {
        calls.delete(id);
        call.reject(failure("disconnected", "the connection ended before the answer"));
      }
    }
  };

  const lose = (code: number, reason: string) => {
    detach();
    if (!comesBack(code) && !(typeof token === "function" && TOKEN_REFUSED.includes(code))) return end(code, reason);
    if (openedAt && performance.now() - openedAt > SETTLED) attempt = 0;
    openedAt = 0;
    if (code === BUSY) attempt = Math.max(attempt, 3);
    const delay = Math.min(maxDelay * SECOND, SECOND * 2 ** attempt++) * (0.25 + 0.75 * Math.random());
    retryTimer = setTimeout(open, delay);
    become("waiting", { code, reason, delay });
  };

  const end = (code: number, reason: string) => {
    if (state === "closed") return;
    detach();
    ending.abort();
    clearTimeout(hideTimer);
    const error = failure("closed", reason || "the connection is closed");
    become("closed", { code, reason });
    finish(code === 1000 || error);
    for (const { reject } of [...calls.values(), ...entries]) reject(error);
    calls.clear();
    entries = [];
  };

  // Signs of life

  const watch = (delay: number) => {
    clearTimeout(watchTimer);
    // the clock of the machine may be set, but goes on while it sleeps; the other one is steady, but may stand still then
    const due = Date.now() + delay;
    watchTimer = setTimeout(() => {
      const isLate = Date.now() - due > LATE;
      const isConnecting = state === "connecting";
      const rest = heardAt + silence * SECOND - performance.now();
      // what arrived while everything stood still has not been read yet: that gets one more chance
      if (unanswered > 1 || (!isLate && (isConnecting || unanswered))) lose(1006, "no answer");
      else if (isConnecting) watch(timeout * SECOND);
      else if (isLate || rest <= 0) probe(isLate ? WAKE_DEADLINE : timeout * SECOND);
      else watch(rest);
    }, delay);
  };

  const probe = (deadline: number) => {
    unanswered++;
    socket?.send('{"command":"ping"}');
    watch(deadline);
  };

  const wake = ({ type }: { type?: string } = {}) => {
    if (state === "waiting" && type !== "offline") open();
    if (state === "open" && !unanswered) probe(WAKE_DEADLINE);
  };

  const adapt = () => {
    if (state === "closed") return;
    if (isHidden && !hiddenHz) {
      detach();
      become("paused");
    } else if (state === "paused") open();
    else if (state === "open") send({ command: "subscribe", ...pace() }).catch(report);
  };

  const look = () => {
    clearTimeout(hideTimer);
    if (page?.hidden) {
      hideTimer = setTimeout(() => {
        isHidden = true;
        adapt();
      }, HIDE_DELAY);
    } else {
      if (isHidden) {
        isHidden = false;
        adapt();
      }
      wake();
    }
  };

  const { signal } = ending;
  for (const type of ["online", "offline", "pageshow"]) globalThis.addEventListener?.(type, wake, { signal });
  page?.addEventListener("resume", wake, { signal });
  page?.addEventListener("visibilitychange", look, { signal });
  // whoever listens from now on sees the first state
  queueMicrotask(() => state === "closed" || open());
  if (page?.hidden) look();
  if (topics.length) {
    subscribe(topics, { since: options.since }).catch((error) => {
      report(error);
      if (state !== "closed") finish(error);
    });
  }

  return {
    get state() {
      return state;
    },
    get position() {
      return newest ? `${epoch}:${newest}` : undefined;
    },
    get topics() {
      return [...new Set(entries.flatMap((entry) => entry.topics))];
    },
    on,
    subscribe,
    unsubscribe: async (topics: string | readonly string[]) => leave(list(topics)),
    async publish(topic: string, payload: unknown, { qos, retain, ...properties }: PublishOptions = {}) {
      let encoding: string | undefined;
      if (payload instanceof Uint8Array) {
        encoding = "base64";
        payload = btoa(Array.from(payload, (byte) => String.fromCharCode(byte)).join(""));
      }
      await send({ command: "publish", topic, payload, encoding, qos, retain, properties });
    },
    async ping() {
      const start = performance.now();
      await send({ command: "ping" });
      return performance.now() - start;
    },
    pace(maxHz?: number) {
      checkRanges({ maxHz });
      rate = maxHz ?? Infinity;
      adapt();
    },
    close: () => end(1000, ""),
    [Symbol.asyncIterator]: iterate,
  } as Live<Payload>;
}

import { connect as connectAlone } from "./connect.js";
import { failure, type Handler, makeEvents, run } from "./events.js";
import { checkRanges, checkSince, list } from "./options.js";
import { matches } from "./topics.js";
import type {
  Live,
  Message,
  Options,
  PublishOptions,
  State,
  StateChange,
  SubscribeOptions,
  Subscription,
} from "./types.js";
import type { FromWorker, ToWorker } from "./worker.js";

export type * from "./protocol.js";
export type * from "./types.js";

export interface SharedOptions extends Options {
  /** Where client-worker.js is: beside this module unless told. Bundlers that move files have to be told. */
  worker?: string | URL;
}

/**
 * The same as `connect`, over one socket for all tabs of this origin that ask for the same address and shape. Where the browser
 * has no SharedWorker, each tab has its own.
 */
export function connect<Payload = unknown>(url: string | URL = "ws", options: SharedOptions = {}): Live<Payload> {
  if (typeof SharedWorker === "undefined" || options.WebSocket) return connectAlone(url, options);
  checkRanges(options);
  checkSince(options.since);
  const first = list(options.topics);
  const { worker, topics, since, token, buffer, ...rest } = options;
  const address = String(new URL(url, document.baseURI));
  const { emit, on, iterate, finish } = makeEvents<Payload>(buffer);
  const calls = new Map<number, { resolve(answer: unknown): void; reject(error: Error): void }>();
  const ending = new AbortController();
  let wanted: { topics: string[]; onMessage: Handler | undefined }[] = [];
  let state: State = "connecting";
  let position: string | undefined;
  let lastId = 0;
  let alone: Live | undefined;

  // bundlers look for `new URL(…, import.meta.url)` and would take the worker apart
  const here = import.meta.url;
  const settings = { url: address, options: rest, hasToken: token !== undefined };
  const { port } = new SharedWorker(worker ?? new URL("client-worker.js", here), {
    type: "module",
    name: JSON.stringify(settings),
  });
  const post = (said: ToWorker) => port.postMessage(said);

  const call = (method: string, ...parameters: unknown[]) =>
    new Promise<unknown>((resolve, reject) => {
      if (state === "closed") return reject(failure("closed", "the connection is closed"));
      calls.set(++lastId, { resolve, reject });
      post({ id: lastId, method, parameters });
    });

  const become = (event: StateChange) => {
    state = event.state;
    if (state === "closed") {
      const { code = 1000, reason } = event;
      finish(code === 1000 || failure("closed", reason || "the connection is closed"));
      ending.abort();
      for (const { reject } of calls.values()) reject(failure("closed", "the connection is closed"));
      calls.clear();
    }
    emit("state", event);
  };

  const deliver = (message: Message) => {
    emit("message", message);
    const levels = message.topic.split("/");
    for (const { topics, onMessage } of wanted) {
      if (onMessage && topics.some((topic) => matches(topic.split("/"), levels))) run(onMessage, message);
    }
  };

  port.onmessage = async ({ data }: MessageEvent<FromWorker>) => {
    if ("message" in data) {
      position = data.position;
      deliver(data.message);
    } else if ("event" in data) {
      if (data.event === "state") become(data.data as StateChange);
      else emit(data.event, data.error ? failure(data.error.code, data.error.message, data.error.reason) : data.data);
    } else if ("tokenFor" in data) {
      try {
        post({ tokenFor: data.tokenFor, token: typeof token === "function" ? await token() : token });
      } catch (error) {
        post({ tokenFor: data.tokenFor, fault: String(error) });
      }
    } else {
      const { id, answer, error } = data;
      if (error) calls.get(id)?.reject(failure(error.code, error.message, error.reason));
      else calls.get(id)?.resolve(answer);
      calls.delete(id);
    }
  };

  /** What only this tab wants: a replay is of no use to the others, and what they hold already is not replayed. */
  const openAlone = () => {
    const opened = connectAlone(address, { ...rest, token });
    opened.on("message", deliver);
    for (const type of ["gap", "unsubscribed", "error"] as const) opened.on(type, (event) => emit(type, event));
    return opened;
  };

  const subscribe = async (topics: string | readonly string[], { since, onMessage }: SubscribeOptions<never> = {}) => {
    checkSince(since);
    const subscription = { topics: list(topics), onMessage };
    wanted.push(subscription);
    if (state !== "closed") finish();
    try {
      if (state === "closed") throw failure("closed", "the connection is closed");
      const isPast = since && since !== "last" && since !== "now";
      if (isPast) alone ??= openAlone();
      const answer = (await (isPast && alone
        ? alone.subscribe(subscription.topics, { since })
        : call("subscribe", subscription.topics, since))) as Subscription;
      return { ...answer, unsubscribe: () => leave(subscription.topics, subscription) };
    } catch (error) {
      wanted = wanted.filter((other) => other !== subscription);
      throw error;
    }
  };

  const leave = async (topics: string[], only?: object) => {
    for (const one of wanted) {
      if (!only || one === only) one.topics = one.topics.filter((topic) => !topics.includes(topic));
    }
    wanted = wanted.filter((one) => one.topics.length);
    const gone = topics.filter((topic) => !wanted.some((one) => one.topics.includes(topic)));
    if (gone.length) await Promise.all([alone?.unsubscribe(gone), call("unsubscribe", gone)]);
  };

  const look = () => post({ isHidden: document.hidden });
  const end = () => {
    post({ bye: true });
    alone?.close();
    become({ state: "closed" });
  };
  const { signal } = ending;
  document.addEventListener("visibilitychange", look, { signal });
  // a page that may come back (from the back/forward cache) keeps its place
  addEventListener("pagehide", ({ persisted }) => persisted || end(), { signal });
  for (const type of ["online", "offline", "pageshow"]) addEventListener(type, () => post({ wake: type }), { signal });
  post({ hello: settings, isHidden: document.hidden });
  if (first.length) {
    subscribe(first, { since }).catch((error) => {
      if (state === "closed") return;
      emit("error", error);
      finish(error);
    });
  }

  return {
    get state() {
      return state;
    },
    get position() {
      return position;
    },
    get topics() {
      return [...new Set(wanted.flatMap((one) => one.topics))];
    },
    on,
    subscribe,
    unsubscribe: async (topics: string | readonly string[]) => leave(list(topics)),
    publish: async (topic: string, payload: unknown, options?: PublishOptions) => {
      await call("publish", topic, payload, options);
    },
    ping: () => call("ping"),
    pace(maxHz?: number) {
      checkRanges({ maxHz });
      post({ pace: maxHz });
      alone?.pace(maxHz);
    },
    close: end,
    [Symbol.asyncIterator]: iterate,
  } as unknown as Live<Payload>;
}

/** One socket for all tabs: what client-shared.js starts as a SharedWorker. */
import { connect } from "./connect.js";
import type { EventName } from "./protocol.js";
import { matches } from "./topics.js";
import type { Live, LiveError, LiveEvents, Message, Options } from "./types.js";

interface Settings {
  url: string;
  options: Options;
  hasToken: boolean;
}

interface Fault {
  code: string;
  message: string;
  reason?: string | undefined;
}

export type ToWorker =
  | { hello: Settings; isHidden: boolean }
  | { id: number; method: string; parameters: unknown[] }
  | { tokenFor: number; token?: string | undefined; fault?: string }
  | { isHidden: boolean }
  | { wake: string }
  | { pace: number | undefined }
  | { bye: true };

export type FromWorker =
  | { message: Message; position: string | undefined }
  | { event: string; data?: unknown; error?: Fault }
  | { tokenFor: number }
  | { id: number; answer?: unknown; error?: Fault };

/** A tab. */
interface Tab {
  post(said: FromWorker): void;
  topics: Set<string>;
  isHidden: boolean;
  pace: number;
}

const MAX_LAST_VALUES = 10_000;
const TOKEN_SECONDS = 10;
/** What is told to every tab. */
const TOLD = [
  "subscribed",
  "unsubscribed",
  "gap",
  "upstream",
  "archive",
  "authenticated",
  "expiring",
  "pong",
  "error",
] as const satisfies EventName[];

const tabs = new Set<Tab>();
const lastValues = new Map<string, Message>();
const tokenCalls = new Map<number, (said: { token?: string | undefined; fault?: string }) => void>();
let lastTokenCall = 0;
let live: Live | undefined;
let lastPace: number;
let upstream: LiveEvents["upstream"] = { connected: true };
let archive: LiveEvents["archive"] = { kept: true };

// The client slows down when its page is hidden; here that means every tab.
const page = Object.assign(new EventTarget(), { hidden: false, baseURI: location.href });
Object.assign(globalThis, { document: page });

const faultOf = (error: LiveError): Fault => ({ code: error.code, message: error.message, reason: error.reason });

const isWanted = (topics: Iterable<string>, topic: string) => {
  const levels = topic.split("/");
  for (const filter of topics) if (matches(filter.split("/"), levels)) return true;
  return false;
};

/** Asks one tab after the other, the newest first: the page that has the token may be the one that was closed. */
async function fetchToken(): Promise<string> {
  let fault = "no tab has a token";
  for (const tab of [...tabs].reverse()) {
    const id = ++lastTokenCall;
    const said = await new Promise<{ token?: string | undefined; fault?: string }>((resolve) => {
      tokenCalls.set(id, resolve);
      setTimeout(resolve, TOKEN_SECONDS * 1000, { fault: "no answer" });
      tab.post({ tokenFor: id });
    });
    tokenCalls.delete(id);
    if (said.token) return said.token;
    fault = said.fault ?? fault;
  }
  throw new Error(fault);
}

function start({ url, options, hasToken }: Settings): Live {
  lastPace = options.maxHz ?? Infinity;
  const started = connect(url, hasToken ? { ...options, token: fetchToken } : options);
  started.on("message", (message) => {
    lastValues.delete(message.topic);
    lastValues.set(message.topic, message);
    if (lastValues.size > MAX_LAST_VALUES) {
      for (const oldest of lastValues.keys()) {
        lastValues.delete(oldest);
        break;
      }
    }
    const said = { message, position: started.position };
    for (const tab of tabs) if (isWanted(tab.topics, message.topic)) tab.post(said);
  });
  started.on("upstream", (event) => {
    upstream = event;
  });
  started.on("archive", (event) => {
    archive = event;
  });
  for (const event of TOLD) {
    started.on(event, (data) => {
      const said = data instanceof Error ? { event, error: faultOf(data) } : { event, data };
      for (const tab of tabs) tab.post(said);
    });
  }
  started.on("state", (data) => {
    // a new connection is told if it isn't kept, and else nothing
    if (data.state === "connecting") archive = { kept: true };
    for (const tab of tabs) tab.post({ event: "state", data });
  });
  return started;
}

const isHeld = (topic: string) => [...tabs].some((tab) => tab.topics.has(topic));

/** The liveliest tab says how much is wanted. */
function adapt(live: Live) {
  const shown = [...tabs].filter((tab) => !tab.isHidden);
  if (shown.length) {
    const pace = Math.max(...shown.map((tab) => tab.pace));
    if (pace !== lastPace) live.pace(pace);
    lastPace = pace;
  }
  if (page.hidden === !shown.length) return;
  page.hidden = !shown.length;
  page.dispatchEvent(new Event("visibilitychange"));
}

/** What a tab asks for, as the methods of `Live` that it calls. */
function methodsOf(tab: Tab, live: Live) {
  return {
    async subscribe(topics: string[], since: "last" | "now" = "last") {
      // the gateway replays what nobody here has yet; the rest is known
      const held = [...tabs].flatMap((other) => [...other.topics]);
      for (const message of since === "last" ? lastValues.values() : []) {
        if (isWanted(topics, message.topic) && isWanted(held, message.topic)) {
          tab.post({ message, position: live.position });
        }
      }
      const added = topics.filter((topic) => !held.includes(topic));
      for (const topic of topics) tab.topics.add(topic);
      let answer = { topics, position: live.position ?? "", recovered: true };
      if (added.length) {
        try {
          const { position, recovered } = await live.subscribe(added, { since });
          answer = { topics, position, recovered };
        } catch (error) {
          for (const topic of added) tab.topics.delete(topic);
          throw error;
        }
      }
      return answer;
    },
    async unsubscribe(topics: string[]) {
      for (const topic of topics) tab.topics.delete(topic);
      const gone = topics.filter((topic) => !isHeld(topic));
      if (gone.length) await live.unsubscribe(gone);
    },
    publish: live.publish,
    ping: live.ping,
  };
}

function welcome(port: MessagePort, hello: Settings, isHidden: boolean) {
  live ??= start(hello);
  const started = live;
  const tab: Tab = {
    post: (said) => port.postMessage(said),
    topics: new Set(),
    isHidden,
    pace: hello.options.maxHz ?? Infinity,
  };
  tabs.add(tab);
  const methods = methodsOf(tab, started) as Record<string, (...parameters: unknown[]) => Promise<unknown>>;
  port.onmessage = async ({ data }: MessageEvent<ToWorker>) => {
    if ("id" in data) {
      const { id, method, parameters } = data;
      try {
        tab.post({ id, answer: await methods[method]?.(...parameters) });
      } catch (error) {
        tab.post({ id, error: faultOf(error as LiveError) });
      }
    } else if ("tokenFor" in data) tokenCalls.get(data.tokenFor)?.(data);
    else if ("wake" in data) dispatchEvent(new Event(data.wake));
    else if ("bye" in data) {
      tabs.delete(tab);
      methods.unsubscribe?.([...tab.topics]).catch(() => {});
      adapt(started);
    } else {
      if ("pace" in data) tab.pace = data.pace ?? Infinity;
      if ("isHidden" in data) tab.isHidden = data.isHidden;
      adapt(started);
    }
  };
  tab.post({ event: "state", data: { state: started.state } });
  if (!upstream.connected) tab.post({ event: "upstream", data: upstream });
  if (!archive.kept) tab.post({ event: "archive", data: archive });
  adapt(started);
}

addEventListener("connect", (event) => {
  const [port] = (event as MessageEvent).ports;
  if (!port) return;
  port.onmessage = ({ data }: MessageEvent<ToWorker>) => {
    if ("hello" in data) welcome(port, data.hello, data.isHidden);
  };
});

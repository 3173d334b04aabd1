/** A browser and a network for the client, without either: sockets that a test answers, a page that it hides, a clock. */
import { vi } from "vitest";

export class FakeSocket {
  static all: FakeSocket[] = [];
  static get last(): FakeSocket {
    const socket = FakeSocket.all.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }

  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readonly url: string;
  readonly sent: Record<string, unknown>[] = [];
  isClosed = false;
  answersPings = false;

  constructor(url: string | URL) {
    this.url = String(url);
    FakeSocket.all.push(this);
  }

  send(text: string) {
    const command = JSON.parse(text);
    this.sent.push(command);
    if (this.answersPings && command.command === "ping") this.say({ event: "pong", id: command.id });
  }

  close() {
    this.isClosed = true;
  }

  // the gateway's side

  accept() {
    this.onopen?.();
    return settle();
  }

  say(frame: object) {
    this.onmessage?.({ data: JSON.stringify(frame) });
    return settle();
  }

  end(code: number, reason = "") {
    this.isClosed = true;
    this.onclose?.({ code, reason });
    return settle();
  }

  /** Commands of one kind that were sent so far. */
  commands(command: string) {
    return this.sent.filter((sent) => sent.command === command);
  }

  /** Takes every subscription that was sent and not answered, and says that their replays are done. */
  async grant(position = "e1:100") {
    for (const id of await this.begin(position)) await this.say({ event: "replayed", id });
  }

  /** Takes every subscription that was sent and not answered; their replays are under way. */
  async begin(position = "e1:100", from?: number) {
    const begun: unknown[] = [];
    for (const sent of this.commands("subscribe")) {
      if (sent.isAnswered || !sent.topics) continue;
      sent.isAnswered = true;
      begun.push(sent.id);
      await this.say({ event: "subscribed", id: sent.id, topics: sent.topics, position, recovered: true, from });
    }
    return begun;
  }

  message(seq: number, topic = "a/b", more: object = {}) {
    return this.say({ topic, payload: seq, time: 1_790_000_000_000 + seq, seq, ...more });
  }
}

class FakePage extends EventTarget {
  hidden = false;
  baseURI = "https://example.test/live/page.html";

  show(isShown: boolean) {
    this.hidden = !isShown;
    this.dispatchEvent(new Event("visibilitychange"));
  }
}

/** Lets promises run, whatever the clock is. */
export async function settle() {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

/** Puts fakes where the client looks for a browser; `random` is what Math.random gives. */
export function makeWorld(random = 0.5) {
  vi.useFakeTimers({ now: 1_790_000_000_000 });
  FakeSocket.all = [];
  const page = new FakePage();
  const window = new EventTarget();
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("document", page);
  vi.stubGlobal("addEventListener", window.addEventListener.bind(window));
  vi.spyOn(Math, "random").mockReturnValue(random);
  return {
    page,
    /** A window event such as `online`. */
    fire: (type: string) => window.dispatchEvent(new Event(type)),
    /** Time in which everything runs as it should. */
    pass: (seconds: number) => vi.advanceTimersByTimeAsync(seconds * 1000),
    /** Time in which nothing runs: the machine sleeps. */
    sleep: (seconds: number) => vi.setSystemTime(Date.now() + seconds * 1000),
  };
}

export function endWorld() {
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
}

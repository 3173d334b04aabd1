import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { connect, type Live, type Message, type StateChange } from "../src/index.js";
import { endWorld, FakeSocket, makeWorld, settle } from "./world.js";

let world: ReturnType<typeof makeWorld>;
let lives: Live[] = [];

beforeEach(() => {
  world = makeWorld();
});

afterEach(() => {
  for (const live of lives) live.close();
  lives = [];
  endWorld();
});

/** A client; its messages and events are noted. */
async function start(options: Parameters<typeof connect>[1] = {}, url = "ws") {
  const live = connect(url, options);
  lives.push(live);
  const seqs: number[] = [];
  const states: StateChange[] = [];
  const events: [string, unknown][] = [];
  live.on("message", (message) => seqs.push(message.seq));
  live.on("state", (change) => states.push(change));
  for (const type of ["gap", "upstream", "error", "subscribed"] as const) {
    live.on(type, (event) => events.push([type, event]));
  }
  await settle();
  return { live, seqs, states, events };
}

/** A client that is connected and subscribed. */
async function startOpen(options: Parameters<typeof connect>[1] = { topics: "a/#" }) {
  const started = await start(options);
  await FakeSocket.last.accept();
  await FakeSocket.last.grant();
  return started;
}

describe("the address", () => {
  it.each([
    ["ws", "wss://example.test/live/ws"],
    ["/ws", "wss://example.test/ws"],
    ["http://other.test:8000/ws", "ws://other.test:8000/ws"],
    ["wss://other.test/deep/ws", "wss://other.test/deep/ws"],
  ])("%s is %s", async (given, opened) => {
    await start({}, given);
    expect(FakeSocket.last.url).toBe(opened);
  });

  it("that is none throws at once", () => {
    expect(() => connect("http://[")).toThrow();
  });
});

it("an address that the browser forbids ends it", async () => {
  vi.stubGlobal(
    "WebSocket",
    class {
      constructor() {
        throw new Error("mixed content");
      }
    },
  );
  const { events, states } = await start({ topics: "a" });
  expect(events).toMatchObject([["error", { code: "blocked", message: "Error: mixed content" }]]);
  expect(states.at(-1)?.state).toBe("closed");
});

describe("options", () => {
  const seconds = "must be a number from 0.001 to 2147483";
  const cases: [string, unknown[], string][] = [
    ["silence", [Number.POSITIVE_INFINITY, Number.NaN, -1, 0, "15", null, 2_147_484], seconds],
    ["timeout", [Number.POSITIVE_INFINITY, Number.NaN, -1, 0, "10", null, 2_147_484], seconds],
    ["maxDelay", [Number.POSITIVE_INFINITY, Number.NaN, -1, 0, "30", null, 2_147_484], seconds],
    ["hiddenHz", [Number.NaN, -1, "1", null], "must be a number from 0 to Infinity"],
    ["maxHz", [Number.NaN, -1, 0, "5", null], "must be a number from 0.001 to Infinity"],
    ["deadband", [Number.NaN, -1, Number.POSITIVE_INFINITY, "1"], "must be a number from 0 to 1e+300"],
    ["buffer", [Number.NaN, -1, 0, Number.POSITIVE_INFINITY, "10"], "must be a number from 1 to 1000000000"],
    ["topics", [5, [5], ["a", null], {}], "must be a topic filter or a list of them"],
    ["since", [5, new Date(0), null], "must be a text such as 10m"],
    ["WebSocket", ["ws", {}], "must be a class; where none is built in, that of the package ws"],
  ];
  it.each(cases.flatMap(([name, values, rule]) => values.map((value) => [name, value, rule] as const)))(
    "%s: %j is refused at once, with its name, the value and the rule",
    async (name, value, rule) => {
      const shown = typeof value === "string" ? JSON.stringify(value) : String(value);
      expect(() => connect("ws", { topics: "a", [name]: value })).toThrow(
        expect.objectContaining({ code: "bad_option", message: `${name} ${shown}: ${rule}` }),
      );
      await settle();
      expect(FakeSocket.all).toEqual([]);
    },
  );

  it("may stand at the ends of their ranges", async () => {
    for (const end of [0.001, 2_147_483]) await start({ silence: end, timeout: end, maxDelay: end });
    await start({ hiddenHz: 0, maxHz: Number.POSITIVE_INFINITY, buffer: 1, deadband: 0 });
    await start({ hiddenHz: Number.POSITIVE_INFINITY, maxHz: 0.001 });
    expect(FakeSocket.all).toHaveLength(4);
  });

  it("of later calls are checked as well", async () => {
    const { live } = await startOpen();
    expect(() => live.pace(Number.NaN)).toThrow("maxHz NaN: must be a number from 0.001 to Infinity");
    await expect(live.subscribe([1] as never)).rejects.toThrow("topics 1: must be a topic filter or a list of them");
    await expect(live.subscribe("b", { since: 5 as never })).rejects.toThrow("since 5: must be a text such as 10m");
    await expect(live.unsubscribe(5 as never)).rejects.toThrow("topics 5: must be a topic filter or a list of them");
  });

  it("say that a class for sockets is missing where the platform has none", () => {
    vi.stubGlobal("WebSocket", undefined);
    expect(() => connect("ws://gateway.test/ws")).toThrow("WebSocket undefined: must be a class");
  });
});

describe("handlers that are added right after connect()", () => {
  it("see the first state", async () => {
    const live = connect("ws");
    lives.push(live);
    const states: string[] = [];
    live.on("state", ({ state }) => states.push(state));
    expect(live.state).toBe("connecting");
    await settle();
    expect(states).toEqual(["connecting"]);
  });

  it("see nothing but the end of one that is closed at once", async () => {
    const live = connect("ws", { topics: "a" });
    const states: string[] = [];
    live.on("state", ({ state }) => states.push(state));
    live.close();
    await settle();
    expect(states).toEqual(["closed"]);
    expect(FakeSocket.all).toEqual([]);
  });
});

describe("subscribing", () => {
  it("asks for the topics, the start and the shape once the connection is open", async () => {
    await start({
      topics: ["a/#", "b"],
      since: "10m",
      maxHz: 5,
      mode: "minmax",
      fields: ["t"],
      deadband: 0.5,
      where: "t > 1",
    });
    expect(FakeSocket.last.sent).toEqual([]);
    await FakeSocket.last.accept();
    expect(FakeSocket.last.sent).toEqual([
      {
        command: "subscribe",
        id: 1,
        topics: ["a/#", "b"],
        since: "10m",
        max_hz: 5,
        mode: "minmax",
        fields: ["t"],
        deadband: 0.5,
        where: "t > 1",
      },
    ]);
  });

  it("resolves when the gateway took it", async () => {
    const { live } = await startOpen({});
    const asked = live.subscribe("a/#", { since: "now" });
    await FakeSocket.last.grant("e1:7");
    expect(await asked).toMatchObject({ topics: ["a/#"], position: "e1:7", recovered: true });
    expect(live.topics).toEqual(["a/#"]);
  });

  it("rejects with the gateway's code, and doesn't ask again", async () => {
    const { live, events } = await startOpen({});
    const asked = live.subscribe("a/#/b");
    await FakeSocket.last.say({ event: "error", id: 1, code: "bad_topic", message: "topic filter 'a/#/b': …" });
    await expect(asked).rejects.toMatchObject({ code: "bad_topic", message: "topic filter 'a/#/b': …" });
    expect(live.topics).toEqual([]);
    expect(events).toEqual([]);
    await FakeSocket.last.end(1012);
    await world.pass(2);
    await FakeSocket.last.accept();
    expect(FakeSocket.last.sent).toEqual([]);
  });

  it("tells an error of the topics that connect was given as an event", async () => {
    const { events } = await start({ topics: "a/#/b" });
    await FakeSocket.last.accept();
    await FakeSocket.last.say({ event: "error", id: 1, code: "bad_topic", message: "no" });
    expect(events).toMatchObject([["error", { code: "bad_topic" }]]);
  });

  it("warns in the console when nobody listens to errors", async () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
    lives.push(connect("ws", { topics: "a/#/b" }));
    await settle();
    await FakeSocket.last.accept();
    await FakeSocket.last.say({ event: "error", id: 1, code: "bad_topic", message: "no" });
    expect(warn).toHaveBeenCalledOnce();
  });

  it("hands messages to the page, and to the handler of each subscription that they match", async () => {
    const { live, seqs } = await startOpen({});
    const wide: number[] = [];
    const narrow: number[] = [];
    live.subscribe("a/#", { onMessage: (message) => wide.push(message.seq) });
    live.subscribe("a/b", { onMessage: (message) => narrow.push(message.seq) });
    await FakeSocket.last.grant();
    await FakeSocket.last.message(1, "a/b");
    await FakeSocket.last.message(2, "a/c");
    expect([seqs, wide, narrow]).toEqual([[1, 2], [1, 2], [1]]);
  });

  it("goes on when a handler throws, and lets the page see the fault", async () => {
    const { live, seqs } = await startOpen();
    const thrown: (() => void)[] = [];
    vi.stubGlobal("queueMicrotask", (throwing: () => void) => thrown.push(throwing));
    live.on("message", () => {
      throw new Error("of the page");
    });
    await FakeSocket.last.message(1);
    await FakeSocket.last.message(2);
    expect(thrown).toHaveLength(2);
    expect(thrown[0]).toThrow("of the page");
    expect(seqs).toEqual([1, 2]);
  });

  it("stops calling a handler that was taken away", async () => {
    const { live } = await startOpen();
    const seqs: number[] = [];
    const off = live.on("message", (message) => seqs.push(message.seq));
    await FakeSocket.last.message(1);
    off();
    await FakeSocket.last.message(2);
    expect(seqs).toEqual([1]);
  });
});

describe("unsubscribing", () => {
  it("takes the filters away, and what was on its way is not handed on", async () => {
    const { live, seqs } = await startOpen({ topics: ["a/#", "b"] });
    const left = live.unsubscribe("a/#");
    expect(FakeSocket.last.commands("unsubscribe")).toMatchObject([{ topics: ["a/#"] }]);
    await FakeSocket.last.message(1, "a/b");
    await FakeSocket.last.message(2, "b");
    await FakeSocket.last.say({ event: "unsubscribed", id: 2, topics: ["a/#"] });
    await left;
    expect(seqs).toEqual([2]);
    expect(live.topics).toEqual(["b"]);
  });

  it("of one subscription leaves what another one wants", async () => {
    const { live, seqs } = await startOpen({});
    const first = live.subscribe(["a", "b"]);
    const second = live.subscribe(["b", "c"]);
    await FakeSocket.last.grant();
    const left = (await first).unsubscribe();
    expect(FakeSocket.last.commands("unsubscribe")).toMatchObject([{ topics: ["a"] }]);
    await FakeSocket.last.say({ event: "unsubscribed", id: 3, topics: ["a"] });
    await left;
    await FakeSocket.last.message(1, "b");
    expect(seqs).toEqual([1]);
    (await second).unsubscribe();
    expect(FakeSocket.last.commands("unsubscribe")).toMatchObject([{}, { topics: ["b", "c"] }]);
  });

  it("without a connection needs no command", async () => {
    const { live } = await start({ topics: "a" });
    await live.unsubscribe("a");
    await FakeSocket.last.accept();
    expect(FakeSocket.last.sent).toEqual([]);
  });
});

describe("publishing", () => {
  it("resolves with the gateway's answer and rejects with its error", async () => {
    const { live } = await startOpen({});
    const good = live.publish("cmd/led", { on: true }, { qos: 1, retain: true, content_type: "application/json" });
    expect(FakeSocket.last.sent).toEqual([
      {
        command: "publish",
        id: 1,
        topic: "cmd/led",
        payload: { on: true },
        qos: 1,
        retain: true,
        properties: { content_type: "application/json" },
      },
    ]);
    await FakeSocket.last.say({ event: "published", id: 1 });
    await good;
    const bad = live.publish("cmd/led", 1);
    await FakeSocket.last.say({ event: "error", id: 2, code: "forbidden", message: "no grant" });
    await expect(bad).rejects.toMatchObject({ code: "forbidden" });
  });

  it("sends bytes as base64", async () => {
    const { live } = await startOpen({});
    live.publish("raw", new Uint8Array([0, 255, 10])).catch(() => {});
    expect(FakeSocket.last.sent).toMatchObject([{ payload: "AP8K", encoding: "base64" }]);
  });

  it("waits for a connection, and not for ever", async () => {
    const { live } = await start({ timeout: 5 });
    const soon = live.publish("a", 1);
    await FakeSocket.last.accept();
    expect(FakeSocket.last.sent).toMatchObject([{ command: "publish" }]);
    await FakeSocket.last.say({ event: "published", id: 1 });
    await soon;
    await FakeSocket.last.end(1006);
    const late = live.publish("a", 2);
    const checked = expect(late).rejects.toMatchObject({ code: "timeout" });
    await world.pass(6);
    await checked;
  });

  it("rejects when the connection ends before the answer, and doesn't publish twice", async () => {
    const { live } = await startOpen({});
    const lost = live.publish("a", 1);
    const checked = expect(lost).rejects.toMatchObject({ code: "disconnected" });
    await FakeSocket.last.end(1006);
    await checked;
    await world.pass(2);
    await FakeSocket.last.accept();
    expect(FakeSocket.last.sent).toEqual([]);
  });
});

describe("coming back", () => {
  it.each([1001, 1005, 1006, 1011, 1012, 1013, 4100, 4101, 4199])("comes back after %i", async (code) => {
    const { live } = await startOpen();
    await FakeSocket.last.end(code);
    expect(live.state).toBe("waiting");
    await world.pass(10);
    expect(FakeSocket.all).toHaveLength(2);
  });

  it.each([1000, 1002, 1003, 1007, 1008, 1009, 1010, 4000, 4001, 4003, 4005, 4008, 4099])(
    "stays away after %i",
    async (code) => {
      const { live, states } = await startOpen();
      const waiting = live.subscribe("later");
      const checked = expect(waiting).rejects.toMatchObject({ code: "closed" });
      await FakeSocket.last.end(code, "why");
      await checked;
      expect(states.at(-1)).toEqual({ state: "closed", code, reason: "why" });
      await world.pass(120);
      expect(FakeSocket.all).toHaveLength(1);
    },
  );

  it("waits longer each time, up to a bound, and never for the same time as everyone else", async () => {
    const { states } = await start({ maxDelay: 20 });
    const random = vi.mocked(Math.random);
    for (const [number, value] of [0, 0.999, 0, 0.999, 0, 0.999, 0, 0.999].entries()) {
      random.mockReturnValue(value);
      await FakeSocket.last.end(1006);
      const bound = Math.min(20_000, 1000 * 2 ** number);
      const delay = states.at(-1)?.delay ?? 0;
      expect(delay).toBeCloseTo(value ? bound : bound / 4, -2);
      await world.pass(delay / 1000 + 0.01);
    }
  });

  it("starts with a short delay after a connection that lasted", async () => {
    const { states } = await startOpen({ topics: "a/#", silence: 1000 });
    for (let i = 0; i < 5; i++) {
      await FakeSocket.last.end(1006);
      await world.pass((states.at(-1)?.delay ?? 0) / 1000 + 0.01);
    }
    await FakeSocket.last.accept();
    await world.pass(11);
    await FakeSocket.last.end(1006);
    expect(states.at(-1)?.delay).toBeLessThanOrEqual(1000);
  });

  it("starts with a short delay after a connection that lasted, whatever the machine's clock said", async () => {
    const { states } = await start({ topics: "a/#", silence: 1000 });
    for (let i = 0; i < 5; i++) {
      await FakeSocket.last.end(1006);
      await world.pass((states.at(-1)?.delay ?? 0) / 1000 + 0.01);
    }
    await FakeSocket.last.accept();
    world.sleep(-3600);
    await world.pass(11);
    await FakeSocket.last.end(1006);
    expect(states.at(-1)?.delay).toBeLessThanOrEqual(1000);
  });

  it("leaves a gateway that is full more time", async () => {
    const { states } = await startOpen();
    await FakeSocket.last.end(1013);
    expect(states.at(-1)?.delay).toBeGreaterThanOrEqual(2000);
  });

  it("gives up on a gateway that doesn't answer the handshake", async () => {
    await start({ timeout: 5 });
    await world.pass(5.1);
    expect(FakeSocket.last.isClosed).toBe(true);
    await world.pass(2);
    expect(FakeSocket.all).toHaveLength(2);
  });

  it("tries at once when the machine is online again", async () => {
    const { live } = await startOpen();
    await FakeSocket.last.end(1006);
    world.fire("online");
    await settle();
    expect(live.state).toBe("connecting");
    await world.pass(5);
    expect(FakeSocket.all).toHaveLength(2);
  });

  it("does nothing after close", async () => {
    const { live } = await startOpen();
    const pending = expect(live.publish("a", 1)).rejects.toMatchObject({ code: "disconnected" });
    live.close();
    await pending;
    expect(FakeSocket.last.isClosed).toBe(true);
    world.fire("online");
    world.page.show(true);
    await world.pass(100);
    expect(FakeSocket.all).toHaveLength(1);
    await expect(live.publish("a", 1)).rejects.toMatchObject({ code: "closed" });
    await expect(live.subscribe("a")).rejects.toMatchObject({ code: "closed" });
  });
});

describe("resuming", () => {
  async function since() {
    await FakeSocket.last.end(1006);
    await world.pass(2);
    await FakeSocket.last.accept();
    return FakeSocket.last.commands("subscribe").map((sent) => sent.since);
  }

  it("asks for what came after the last message", async () => {
    await startOpen({ topics: "a/#" });
    await FakeSocket.last.message(50);
    await FakeSocket.last.message(104);
    expect(await since()).toEqual(["e1:104"]);
  });

  it("asks as at first when nothing came before the end of the replay", async () => {
    await start({ topics: "a/#", since: "10m" });
    await FakeSocket.last.accept();
    await FakeSocket.last.begin();
    expect(await since()).toEqual(["10m"]);
  });

  it("asks from the end of a replay in which nothing came", async () => {
    await startOpen({ topics: "a/#", since: "10m" });
    expect(await since()).toEqual(["e1:100"]);
  });

  it("asks from the start of a subscription to what is new, when nothing came", async () => {
    await startOpen({ topics: "a/#", since: "now" });
    expect(await since()).toEqual(["e1:100"]);
  });

  it("goes on in the middle of a replay", async () => {
    const { live } = await startOpen({ topics: "b" });
    live.subscribe("a/#", { since: "10m" });
    await FakeSocket.last.begin("e1:100", 40);
    await FakeSocket.last.message(50);
    expect(await since()).toEqual(["e1:100", "e1:50"]);
    await FakeSocket.last.begin("e1:120", 50);
    expect(await since()).toEqual(["e1:100", "e1:50"]);
  });

  it("knows for each subscription how far it has been read", async () => {
    const { live } = await startOpen({ topics: "a/#" });
    await FakeSocket.last.message(110, "a/b");
    live.subscribe("b/#", { since: "10m" });
    await FakeSocket.last.begin("e1:110", 20);
    await FakeSocket.last.message(60, "b/x");
    expect(await since()).toEqual(["e1:110", "e1:60"]);
  });

  it("counts what comes live for all subscriptions whose replay is done", async () => {
    const { live } = await startOpen({ topics: "a/#" });
    live.subscribe("b/#", { since: "10m" });
    await FakeSocket.last.grant("e1:110");
    await FakeSocket.last.message(111, "a/b");
    expect(await since()).toEqual(["e1:111", "e1:111"]);
  });

  it("doesn't count a part in another's replay as its own", async () => {
    const { live } = await startOpen({ topics: "a/#" });
    const handled: number[] = [];
    live.subscribe("a/+", { since: "10m" });
    live.subscribe("a/b", { since: "1h", onMessage: ({ seq }) => handled.push(seq) });
    await FakeSocket.last.begin("e1:110", 20);
    await FakeSocket.last.message(60, "a/b");
    expect(handled).toEqual([60]);
    expect(await since()).toEqual(["e1:100", "e1:60", "1h"]);
  });

  it("hands out once what comes again for another subscription", async () => {
    const { live, seqs } = await startOpen({ topics: "a/#" });
    live.subscribe("#", { since: "10m" });
    await FakeSocket.last.message(105, "a/b");
    await FakeSocket.last.begin("e1:110", 20);
    expect(await since()).toEqual(["e1:105", "10m"]);
    const [first, second] = FakeSocket.last.commands("subscribe");
    const answer = { event: "subscribed", position: "e1:110", recovered: true };
    await FakeSocket.last.say({ ...answer, id: first?.id, from: 105 });
    await FakeSocket.last.say({ ...answer, id: second?.id, from: 20 });
    for (const seq of [60, 100, 101, 105]) await FakeSocket.last.message(seq, "a/b");
    await FakeSocket.last.message(105, "b");
    // up to 100 the first asked for last values only
    expect(seqs).toEqual([105, 60, 100, 105]);
  });

  it("takes the numbers of a gateway that was restarted", async () => {
    const { live } = await startOpen({ topics: "a/#" });
    await FakeSocket.last.message(104);
    expect(await since()).toEqual(["e1:104"]);
    await FakeSocket.last.begin("e2:3");
    expect(live.position).toBeUndefined();
    await FakeSocket.last.message(2);
    expect(live.position).toBe("e2:2");
    expect(await since()).toEqual(["e2:2"]);
  });

  it("tells that the broker is back when that happened between two connections", async () => {
    const { events } = await startOpen({ topics: "a/#" });
    await FakeSocket.last.say({ event: "upstream", connected: false });
    await since();
    await FakeSocket.last.say({ event: "upstream", connected: false });
    await FakeSocket.last.grant();
    await since();
    await FakeSocket.last.grant();
    const told = events
      .filter(([type]) => type === "upstream")
      .map(([, event]) => (event as { connected: boolean }).connected);
    expect(told).toEqual([false, false, true]);
  });

  it("hands on what the gateway says is missing", async () => {
    const { events } = await startOpen();
    await FakeSocket.last.say({ event: "gap", reason: "slow", lost: 12, from: 3, to: 15 });
    await FakeSocket.last.say({ event: "upstream", connected: false });
    expect(events.slice(1)).toMatchObject([
      ["gap", { reason: "slow", lost: 12, from: 3, to: 15 }],
      ["upstream", { connected: false }],
    ]);
  });

  it("tells when a filter is not granted any more", async () => {
    const { live, events } = await startOpen();
    await FakeSocket.last.end(1006);
    await world.pass(2);
    await FakeSocket.last.accept();
    await FakeSocket.last.say({ event: "error", id: 2, code: "forbidden", message: "no" });
    expect(events.at(-1)).toMatchObject(["error", { code: "forbidden" }]);
    expect(live.topics).toEqual([]);
  });
});

describe("signs of life", () => {
  it("asks a silent gateway, and leaves one that doesn't answer", async () => {
    const { live, states } = await startOpen({ topics: "a/#", silence: 15, timeout: 10 });
    await world.pass(14.9);
    expect(FakeSocket.last.commands("ping")).toHaveLength(0);
    await world.pass(0.2);
    expect(FakeSocket.last.commands("ping")).toHaveLength(1);
    await FakeSocket.last.say({ event: "pong" });
    await world.pass(15.1);
    expect(FakeSocket.last.commands("ping")).toHaveLength(2);
    expect(live.state).toBe("open");
    await world.pass(10.1);
    expect(states.at(-1)).toMatchObject({ state: "waiting", code: 1006 });
    expect(FakeSocket.all[0]?.isClosed).toBe(true);
  });

  it("asks nothing while messages come", async () => {
    await startOpen({ topics: "a/#", silence: 15 });
    for (let i = 1; i < 20; i++) {
      await world.pass(5);
      await FakeSocket.last.message(i);
    }
    expect(FakeSocket.last.commands("ping")).toHaveLength(0);
  });

  it("asks at once after a sleep, and reconnects soon if there is no answer", async () => {
    const { live } = await startOpen({ topics: "a/#" });
    world.sleep(3600);
    await world.pass(11);
    expect(FakeSocket.last.commands("ping")).toHaveLength(1);
    expect(live.state).toBe("open");
    await world.pass(2.1);
    expect(live.state).toBe("waiting");
  });

  it("doesn't blame a gateway whose answer waits behind a timer that was late", async () => {
    const { live } = await startOpen({ topics: "a/#", silence: 15, timeout: 10 });
    await world.pass(15.1);
    world.sleep(60);
    await world.pass(10);
    expect(live.state).toBe("open");
    await FakeSocket.last.say({ event: "pong" });
    await world.pass(5);
    expect(live.state).toBe("open");
  });

  it("notices a dead connection as soon when the machine's clock is set back", async () => {
    const { live } = await startOpen({ topics: "a/#", silence: 15, timeout: 10 });
    world.sleep(-3600);
    await world.pass(15.1);
    expect(FakeSocket.last.commands("ping")).toHaveLength(1);
    await world.pass(10.1);
    expect(live.state).toBe("waiting");
  });

  it("asks when the page is shown again", async () => {
    const { live } = await startOpen();
    world.page.show(true);
    expect(FakeSocket.last.commands("ping")).toHaveLength(1);
    await world.pass(3.1);
    expect(live.state).toBe("waiting");
  });

  it("measures the way there and back", async () => {
    const { live } = await startOpen({});
    const asked = live.ping();
    await world.pass(0.04);
    await FakeSocket.last.say({ event: "pong", id: 1 });
    expect(await asked).toBeCloseTo(40);
  });
});

describe("a hidden tab", () => {
  beforeEach(() => {
    vi.spyOn(FakeSocket.prototype, "accept").mockImplementation(async function (this: FakeSocket) {
      this.answersPings = true;
      this.onopen?.();
      await settle();
    });
  });

  const rates = () => FakeSocket.last.commands("subscribe").map((sent) => sent.max_hz);

  it("slows to a trickle and comes back to its rate when shown", async () => {
    await startOpen({ topics: "a/#", maxHz: 5 });
    world.page.show(false);
    await world.pass(4);
    expect(rates()).toEqual([5]);
    await world.pass(2);
    expect(rates()).toEqual([5, 0.2]);
    expect(FakeSocket.last.commands("subscribe").at(-1)).not.toHaveProperty("topics");
    world.page.show(true);
    expect(rates()).toEqual([5, 0.2, 5]);
  });

  it("gets everything again when no rate was asked for", async () => {
    await startOpen({ topics: "a/#" });
    world.page.show(false);
    await world.pass(6);
    world.page.show(true);
    expect(rates()).toEqual([null, 0.2, null]);
  });

  it("that is hidden for a moment only goes on", async () => {
    await startOpen({ topics: "a/#", maxHz: 5 });
    world.page.show(false);
    await world.pass(3);
    world.page.show(true);
    await world.pass(10);
    expect(rates()).toEqual([5]);
  });

  it("reconnects at its trickle", async () => {
    await startOpen({ topics: "a/#", maxHz: 5 });
    world.page.show(false);
    await world.pass(6);
    await FakeSocket.last.end(1012);
    await world.pass(2);
    await FakeSocket.last.accept();
    expect(rates()).toEqual([0.2]);
  });

  it("closes with hiddenHz 0, and gets what it missed when shown", async () => {
    const { live } = await startOpen({ topics: "a/#", hiddenHz: 0 });
    await FakeSocket.last.message(104);
    world.page.show(false);
    await world.pass(6);
    expect(live.state).toBe("paused");
    expect(FakeSocket.last.isClosed).toBe(true);
    await world.pass(600);
    expect(FakeSocket.all).toHaveLength(1);
    world.page.show(true);
    await settle();
    await FakeSocket.last.accept();
    expect(FakeSocket.last.commands("subscribe")).toMatchObject([{ since: "e1:104", max_hz: null }]);
  });

  it("changes nothing with hiddenHz Infinity", async () => {
    await startOpen({ topics: "a/#", maxHz: 5, hiddenHz: Number.POSITIVE_INFINITY });
    world.page.show(false);
    await world.pass(60);
    expect(rates().at(-1)).toBe(5);
  });

  it("may be opened hidden", async () => {
    world.page.hidden = true;
    await startOpen({ topics: "a/#", maxHz: 5 });
    await world.pass(6);
    expect(rates()).toEqual([5, 0.2]);
  });

  it("keeps a pace that was set", async () => {
    const { live } = await startOpen({ topics: "a/#", maxHz: 5 });
    live.pace(1);
    live.pace();
    expect(rates()).toEqual([5, 1, null]);
  });
});

describe("tokens", () => {
  it("come first, and subscriptions when the token is accepted", async () => {
    await start({ topics: "a/#", token: "T1" });
    await FakeSocket.last.accept();
    expect(FakeSocket.last.sent).toEqual([{ command: "authenticate", id: 1, token: "T1" }]);
    await FakeSocket.last.say({ event: "authenticated", id: 1 });
    expect(FakeSocket.last.sent).toMatchObject([{}, { command: "subscribe" }]);
    expect(FakeSocket.last.url).not.toContain("T1");
  });

  it("that are fixed and refused end it", async () => {
    const { states, events } = await start({ topics: "a/#", token: "T1" });
    await FakeSocket.last.accept();
    await FakeSocket.last.say({ event: "error", id: 1, code: "unauthorized", message: "not valid" });
    expect(events).toMatchObject([["error", { code: "unauthorized" }]]);
    expect(states.at(-1)).toEqual({ state: "closed", code: 4001, reason: "not valid" });
  });

  it.each(["failed_tokens", "keys_unavailable"])("that can't be judged now (%s) are shown again", async (reason) => {
    const { live } = await start({ topics: "a/#", token: "T1" });
    await FakeSocket.last.accept();
    await FakeSocket.last.say({ event: "error", id: 1, code: "unauthorized", reason, message: "later" });
    expect(live.state).toBe("waiting");
    await world.pass(9);
    expect(FakeSocket.all).toHaveLength(2);
  });

  it("that grant less take filters away", async () => {
    const { live, seqs } = await startOpen({ topics: ["a/#", "b/#"] });
    const told: unknown[] = [];
    live.on("unsubscribed", (event) => told.push(event));
    await FakeSocket.last.say({ event: "unsubscribed", topics: ["a/#"], reason: "forbidden" });
    expect(told).toMatchObject([{ topics: ["a/#"], reason: "forbidden" }]);
    await FakeSocket.last.message(1, "a/b");
    await FakeSocket.last.message(2, "b/b");
    expect(seqs).toEqual([2]);
    expect(live.topics).toEqual(["b/#"]);
  });

  it("are fetched anew for every connection", async () => {
    let number = 0;
    const token = vi.fn(async () => `T${++number}`);
    await start({ topics: "a/#", token });
    await FakeSocket.last.accept();
    await FakeSocket.last.say({ event: "error", id: 1, code: "unauthorized", message: "not valid" });
    await world.pass(2);
    await FakeSocket.last.accept();
    expect(FakeSocket.last.sent).toMatchObject([{ token: "T2" }]);
    await FakeSocket.last.say({ event: "authenticated", id: 2 });
    await FakeSocket.last.end(4005, "the token has ended");
    await world.pass(4);
    await FakeSocket.last.accept();
    expect(FakeSocket.last.sent).toMatchObject([{ token: "T3" }]);
  });

  it("are renewed in band before they end", async () => {
    let number = 0;
    const { live } = await start({ topics: "a/#", token: () => `T${++number}` });
    await FakeSocket.last.accept();
    await FakeSocket.last.say({ event: "authenticated", id: 1 });
    await FakeSocket.last.say({ event: "expiring" });
    expect(FakeSocket.last.commands("authenticate")).toMatchObject([{ token: "T1" }, { token: "T2" }]);
    expect(live.state).toBe("open");
    expect(FakeSocket.all).toHaveLength(1);
  });

  it("that can't be fetched are told, and tried again", async () => {
    const token = vi.fn().mockRejectedValueOnce(new Error("sign in first")).mockResolvedValue("T2");
    const { states, events } = await start({ topics: "a/#", token });
    expect(FakeSocket.all).toHaveLength(0);
    expect(events).toMatchObject([["error", { code: "token", message: "Error: sign in first" }]]);
    expect(states.at(-1)?.state).toBe("waiting");
    await world.pass(2);
    await FakeSocket.last.accept();
    expect(FakeSocket.last.sent).toMatchObject([{ token: "T2" }]);
  });
});

describe("for await", () => {
  it("gives every message, and ends when the connection is closed", async () => {
    const { live } = await startOpen();
    const seqs: number[] = [];
    const reading = (async () => {
      for await (const message of live) seqs.push(message.seq);
    })();
    await FakeSocket.last.message(1);
    await FakeSocket.last.message(2);
    live.close();
    await reading;
    expect(seqs).toEqual([1, 2]);
  });

  const read = async (live: Live) => {
    const seqs: number[] = [];
    try {
      for await (const message of live) seqs.push(message.seq);
    } catch (error) {
      return [...seqs, error];
    }
    return seqs;
  };

  it("fails when the gateway ends the connection for good, after what had come", async () => {
    const { live } = await startOpen();
    const reading = read(live);
    await settle();
    await FakeSocket.last.message(1);
    await FakeSocket.last.end(4003, "no grant covers a/#");
    expect(await reading).toMatchObject([1, { code: "closed", message: "no grant covers a/#" }]);
  });

  it("fails when the token is refused", async () => {
    const { live } = await start({ topics: "a", token: "bad" });
    const reading = read(live);
    await FakeSocket.last.accept();
    await FakeSocket.last.say({
      event: "error",
      id: FakeSocket.last.sent[0]?.id,
      code: "unauthorized",
      message: "bad token",
    });
    expect(await reading).toMatchObject([{ code: "closed", message: "bad token" }]);
  });

  it("fails when its topics are refused", async () => {
    const { live } = await start({ topics: "a" });
    const reading = read(live);
    await FakeSocket.last.accept();
    const [command] = FakeSocket.last.commands("subscribe");
    await FakeSocket.last.say({ event: "error", id: command?.id, code: "forbidden", message: "no grant covers a" });
    expect(await reading).toMatchObject([{ code: "forbidden", message: "no grant covers a" }]);
    expect(await read(live)).toMatchObject([{ code: "forbidden" }]);
    live.subscribe("b");
    const again = read(live);
    await FakeSocket.last.grant();
    await FakeSocket.last.message(101, "b");
    live.close();
    expect(await again).toEqual([101]);
  });

  it("that begins after the end ends at once, as the others did", async () => {
    const { live } = await startOpen();
    live.close();
    expect(await read(live)).toEqual([]);
    const { live: unanswered } = await start({ topics: "a" });
    unanswered.close();
    await settle();
    expect(await read(unanswered)).toEqual([]);
    const refused = await startOpen();
    await FakeSocket.last.end(4003, "why");
    expect(await read(refused.live)).toMatchObject([{ code: "closed", message: "why" }]);
  });

  it("can be left", async () => {
    const { live } = await startOpen();
    const reading = (async () => {
      for await (const message of live) return message;
      throw new Error("it ended");
    })();
    await settle();
    await FakeSocket.last.message(1);
    expect(await reading).toMatchObject({ seq: 1 });
  });

  it("drops the oldest for a reader that is too slow, and says so", async () => {
    const { live, events } = await startOpen({ topics: "a/#", buffer: 10 });
    const iterator = live[Symbol.asyncIterator]();
    const first = iterator.next();
    for (let i = 1; i <= 12; i++) await FakeSocket.last.message(i);
    expect(await first).toMatchObject({ value: { seq: 1 } });
    const gaps = events.filter(([type]) => type === "gap").map(([, gap]) => gap as { lost: number; to: number });
    expect(gaps).toMatchObject([{ reason: "reader", lost: 5, from: 2, to: 6 }]);
    const rest: Message[] = [];
    live.close();
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) rest.push(next.value);
    expect(rest.map((message) => message.seq)).toEqual([7, 8, 9, 10, 11, 12]);
  });
});

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, it, vi } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { connect, type Live, type Message, type State } from "../src/index.js";

const servers: { close(): void }[] = [];
const lives: Live[] = [];

afterEach(() => {
  for (const live of lives.splice(0)) live.close();
  for (const server of servers.splice(0)) server.close();
});

/** A server on a free port, and the address of its `/ws`. */
async function listen(server: Server): Promise<string> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/ws`;
}

/** A client with the sockets of the package ws, and the states that it went through. */
function start(url: string, options: Parameters<typeof connect>[1] = {}) {
  const live = connect(url, { WebSocket, maxDelay: 0.01, ...options });
  lives.push(live);
  const states: State[] = [];
  live.on("state", ({ state }) => states.push(state));
  return { live, states };
}

it("is a client for Node.js with the sockets of the package ws: it comes back and goes on where it was", async () => {
  const http = createServer();
  const gateway = new WebSocketServer({ server: http });
  const asked: string[] = [];
  gateway.on("connection", (socket) => {
    socket.on("message", (text) => {
      const { id, topics, since } = JSON.parse(String(text));
      asked.push(since);
      const seq = asked.length;
      for (const frame of [
        { event: "subscribed", id, topics, position: `e1:${seq - 1}`, recovered: true },
        { event: "replayed", id },
        { topic: "a/b", payload: { seq }, time: 1_790_000_000_000, seq },
      ]) {
        socket.send(JSON.stringify(frame));
      }
      if (seq < 3) socket.terminate();
    });
  });
  const { live } = start(await listen(http), { topics: "a/#" });
  const messages: Message[] = [];
  for await (const message of live) if (messages.push(message) === 3) break;
  expect(messages.map(({ payload }) => payload)).toEqual([{ seq: 1 }, { seq: 2 }, { seq: 3 }]);
  expect(asked).toEqual(["last", "e1:1", "e1:2"]);
});

it("waits where nobody listens, and the program lives on", async () => {
  const http = createServer();
  const url = await listen(http);
  http.close();
  const { states } = start(url);
  await vi.waitFor(() => expect(states.filter((state) => state === "waiting").length).toBeGreaterThan(2), 10_000);
});

it("gives up on a handshake that is not answered, and the program lives on", async () => {
  const http = createServer();
  http.on("upgrade", (_request, socket) => servers.push({ close: () => socket.destroy() }));
  const { states } = start(await listen(http), { timeout: 0.05 });
  await vi.waitFor(() => expect(states.filter((state) => state === "waiting").length).toBeGreaterThan(1), 10_000);
});

it("says at once that a class is missing where the platform has no sockets", () => {
  vi.stubGlobal("WebSocket", undefined);
  expect(() => connect("http://127.0.0.1/ws")).toThrow("that of the package ws");
  vi.unstubAllGlobals();
});

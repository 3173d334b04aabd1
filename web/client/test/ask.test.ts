import { afterEach, expect, it, vi } from "vitest";
import { alerts, devices, history, last } from "../src/ask.js";

afterEach(() => vi.unstubAllGlobals());

/** A gateway that answers with these, one after the other, and what it was asked. */
function answering(...answers: [status: number, body: unknown][]) {
  const asked: { url: string; headers: Record<string, string> }[] = [];
  vi.stubGlobal("fetch", async (url: URL, init: { headers: Record<string, string> }) => {
    asked.push({ url: String(url), headers: init.headers });
    const [status, body] = answers.shift() ?? [500, null];
    return new Response(typeof body === "string" ? body : JSON.stringify(body), { status });
  });
  return asked;
}

it("fetches page after page", async () => {
  const asked = answering(
    [200, { total: 3, devices: [{ id: "a" }, { id: "b c" }], next: "b c" }],
    [200, { total: 3, devices: [{ id: "d" }] }],
  );
  const found = await devices({ url: "https://gateway.example.org/", token: async () => "T" });
  expect(found.map(({ id }) => id)).toEqual(["a", "b c", "d"]);
  expect(asked.map(({ url }) => url)).toEqual([
    "https://gateway.example.org/devices",
    "https://gateway.example.org/devices?after=b+c",
  ]);
  expect(asked[0]?.headers).toEqual({ accept: "application/json", authorization: "Bearer T" });
});

it("says by its code why there are none", async () => {
  answering([401, { code: "unauthorized", detail: "a token is needed" }], [502, "<html>"]);
  await expect(devices({ url: "https://gateway.example.org" })).rejects.toMatchObject({
    code: "unauthorized",
    message: "a token is needed",
  });
  await expect(devices({ url: "https://gateway.example.org" })).rejects.toMatchObject({ code: "internal" });
});

const url = "https://gateway.example.org/behind/a/prefix";

it("fetches the last value of each topic, page after page", async () => {
  const asked = answering(
    [200, { messages: [{ topic: "a", payload: 1 }], position: "e:9", more: true, next: "a" }],
    [200, { messages: [{ topic: "b", payload: 2 }], position: "e:9" }],
  );
  const found = await last<number>(["a/+", "b #/é"], { url, where: "payload > 0", fields: ["t", "h"] });
  expect(found.map(({ payload }) => payload)).toEqual([1, 2]);
  const at = `${url}/topics/a/%2B?topic=b+%23%2F%C3%A9&where=payload+%3E+0&fields=t%2Ch&limit=10000`;
  expect(asked.map((each) => each.url)).toEqual([at, `${at}&after=a`]);
});

it.each([
  ["sensors/kitchen/state", "sensors/kitchen/state"],
  ["#", "%23"],
  ["/a", "%2Fa"],
  ["a/../b", "a%2F..%2Fb"],
  ["a//b", "a%2F%2Fb"],
])("asks for %s", async (filter, path) => {
  const asked = answering([200, { messages: [], position: "e:1" }]);
  await last(filter, { url: "https://gateway.example.org" });
  expect(asked[0]?.url).toBe(`https://gateway.example.org/topics/${path}?limit=10000`);
});

it("fetches history until it has enough, and says from where to go on", async () => {
  const gap = { reason: "evicted", lost: 3 };
  const asked = answering(
    [200, { messages: [{ seq: 1 }, { seq: 2 }], position: "e:9", recovered: false, gap, more: true, next: "e:2" }],
    [200, { messages: [{ seq: 3 }], position: "e:9", recovered: true, more: true, next: "e:3" }],
  );
  const found = await history("a", { url, since: "1h", limit: 3 });
  expect(found).toEqual({
    messages: [{ seq: 1 }, { seq: 2 }, { seq: 3 }],
    position: "e:3",
    recovered: false,
    gap,
    more: true,
  });
  expect(asked.map((each) => each.url)).toEqual([
    `${url}/topics/a?since=1h&order=asc&limit=3`,
    `${url}/topics/a?since=e%3A2&epoch=e&order=asc&limit=1`,
  ]);
});

it("fetches history from its end", async () => {
  const asked = answering(
    [200, { messages: [{ seq: 9 }, { seq: 8 }], position: "e:9", recovered: true, more: true, next: "e:7" }],
    [200, { messages: [{ seq: 7 }], position: "e:7", recovered: true }],
  );
  const found = await history("a", { url, order: "desc" });
  expect(found).toMatchObject({ position: "e:9", recovered: true, more: false });
  expect(found.messages.map(({ seq }) => seq)).toEqual([9, 8, 7]);
  expect(asked[1]?.url).toBe(`${url}/topics/a?until=e%3A7&epoch=e&order=desc&limit=9998`);
});

it("fetches alerts", async () => {
  const asked = answering([200, { alerts: [{ name: "too-hot", state: "firing" }] }]);
  expect(await alerts({ url })).toMatchObject([{ name: "too-hot", state: "firing" }]);
  expect(asked[0]?.url).toBe(`${url}/alerts`);
});

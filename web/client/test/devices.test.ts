import { afterEach, expect, it, vi } from "vitest";
import { devices } from "../src/devices.js";

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
  const found = await devices("https://gateway.example.org/devices", { token: async () => "T" });
  expect(found.map(({ id }) => id)).toEqual(["a", "b c", "d"]);
  expect(asked.map(({ url }) => url)).toEqual([
    "https://gateway.example.org/devices",
    "https://gateway.example.org/devices?after=b+c",
  ]);
  expect(asked[0]?.headers).toEqual({ accept: "application/json", authorization: "Bearer T" });
});

it("says by its code why there are none", async () => {
  answering([401, { code: "unauthorized", detail: "a token is needed" }], [502, "<html>"]);
  await expect(devices("https://gateway.example.org/devices")).rejects.toMatchObject({
    code: "unauthorized",
    message: "a token is needed",
  });
  await expect(devices("https://gateway.example.org/devices")).rejects.toMatchObject({ code: "internal" });
});

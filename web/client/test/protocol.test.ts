import { fileURLToPath } from "node:url";
import { build } from "vite";
import { describe, expect, expectTypeOf, it } from "vitest";
import { comesBack } from "../src/connect.js";
import * as protocol from "../src/protocol.js";
import type { Gap, LiveEvents, Message, Properties } from "../src/types.js";

describe("the tables of the protocol", () => {
  it("have the members that the types have", () => {
    expectTypeOf<keyof Message>().toEqualTypeOf<(typeof protocol.MESSAGE)[number]>();
    expectTypeOf<keyof Properties>().toEqualTypeOf<(typeof protocol.PROPERTIES)[number]>();
    expectTypeOf<Gap["reason"]>().toEqualTypeOf<protocol.GapReason | "reader">();
    // `replayed` is for the client itself; `message` and `state` are its own
    expectTypeOf<keyof LiveEvents | "replayed">().toEqualTypeOf<protocol.EventName | "message" | "state">();
  });
  it("say after which close codes the client comes back", () => {
    for (const name of Object.keys(protocol.CLOSE_CODES) as protocol.CloseCode[]) {
      const isBack = protocol.RECONNECTABLE.some((other) => other === name);
      expect([name, comesBack(protocol.CLOSE_CODES[name])]).toEqual([name, isBack]);
    }
  });
  it("are not in what a page loads", async () => {
    const [bundle] = [
      await build({
        root: fileURLToPath(new URL("..", import.meta.url)),
        configFile: false,
        logLevel: "error",
        build: { write: false, lib: { entry: "src/index.ts", formats: ["es"], fileName: "client" } },
      }),
    ].flat();
    const code = bundle && "output" in bundle ? bundle.output[0].code : "";
    expect(code).toContain("authenticate");
    expect(code).not.toContain("unknown_stream");
    expect(code).not.toContain("NOT_UTF8");
  });
});

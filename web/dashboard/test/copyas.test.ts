import { describe, expect, it } from "vitest";
import { copyForms, shellQuote } from "../src/core/copyas.ts";

const form = (name: string, ...args: Parameters<typeof copyForms>) =>
  copyForms(...args).find((entry) => entry.name === name)?.text ?? "";

describe("copy as", () => {
  it("keeps the path prefix and the scheme", () => {
    expect(form("JavaScript", "https://h/gw/", "a/#", "10m", false)).toContain('connect("wss://h/gw/ws"');
    expect(form("curl", "https://h/gw/", "a/#", "10m", false)).toBe(
      "curl -N -H \"Accept: text/event-stream\" 'https://h/gw/topics/a/%23?since=10m'",
    );
  });
  it("quotes what a shell would read", () => {
    expect(shellQuote("it's $HOME")).toBe("'it'\\''s $HOME'");
    expect(form("mosquitto_sub", "http://h/", "$SYS/#", "", false)).toBe("mosquitto_sub -h \"$BROKER\" -v -t '$SYS/#'");
  });
  it("never holds a token", () => {
    for (const entry of copyForms("http://h/", "a", "", true)) expect(entry.text).not.toMatch(/eyJ/);
    expect(form("curl", "http://h/", "a", "", true)).toContain("$TOKEN");
  });
});

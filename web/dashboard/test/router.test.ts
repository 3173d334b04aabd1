// @vitest-environment node
import { describe, expect, it, vi } from "vitest";

// As the gateway serves the page below /topics/: two levels down, and it says so.
vi.stubGlobal("document", { querySelector: () => ({ content: "../../" }) });
vi.stubGlobal("location", { href: "http://host/gw/topics/a/b?since=1h", origin: "http://host" });
vi.stubGlobal("addEventListener", () => undefined);
const { parseRoute, to } = await import("../src/router.ts");

const parse = (address: string) => {
  const { view, filter } = parseRoute(new URL(address, "http://host"), new URL("http://host/gw/"));
  return filter === "" ? view : `${view} ${filter}`;
};

describe("addresses", () => {
  it.each([
    ["/gw/", "devices"],
    ["/gw/?view=topics", "topics"],
    ["/gw/topics", "topics"],
    ["/gw/?view=publish&topic=a", "publish"],
    ["/gw/?view=connection", "connection"],
    ["/gw/?view=nonsense", "devices"],
    ["/gw/topics/sensors/+/state?since=1h", "live sensors/+/state"],
    ["/gw/topics/%23", "live #"],
    ["/gw/topics/a%2F%2Fb", "live a//b"],
    ["/gw/topics/100%", "live 100%"],
  ])("%s is %s", (address, expected) => expect(parse(address)).toBe(expected));

  it("keep the path prefix", () => {
    expect(to.live("a/#", "?embed=1")).toBe("http://host/gw/topics/a/%23?embed=1");
    expect(to.publish("a&b")).toBe("http://host/gw/?view=publish&topic=a%26b");
    expect(parse(to.live("$SYS/#"))).toBe("live $SYS/#");
  });
});

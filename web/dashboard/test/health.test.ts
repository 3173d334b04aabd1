import { describe, expect, it } from "vitest";
import { boardBase, healthRows, type Line, lineOf, withLine } from "../src/core/health.ts";

describe("how a board is", () => {
  it("is asked of our own sensors only", () => {
    expect(boardBase(["homeassistant/device/x/config", "sensors/kitchen/meta"])).toBe("sensors/kitchen");
    expect(boardBase(["sensors/a/b/meta", "zigbee2mqtt/bridge/devices"])).toBeNull();
  });
  it("stands in rows, without what it does not say", () => {
    const diag = { started_by: "watchdog", uptime: 86_412, heap_free: 61_440, rssi: -61, wifi_quality: 78, boot: 17 };
    expect(healthRows(diag)).toEqual([
      ["Started by", "the watchdog: the program hung"],
      ["Running for", expect.stringMatching(/^24 h|^1 d/)],
      ["Restarts", "17"],
      ["Wi-Fi", "78 %, -61 dBm"],
      ["Free memory", "60 KiB"],
    ]);
    expect(healthRows({ uptime: "long", heap_free: Number.NaN, battery_days: 41.3 })).toEqual([
      ["Battery lasts, estimated", "41.3 days"],
    ]);
  });
});

describe("its log", () => {
  const line = (n: number, before = false): Line =>
    lineOf({ n, boot: 2, up: 1.5, level: "error", text: "wifi: lost", ...(before ? { before } : {}) }) as Line;
  it("has each line once, the newest first", () => {
    const lines = [line(0), line(1), line(1), line(1, true)].reduce(withLine, [] as readonly Line[]);
    expect(lines.map(({ n, before }) => [n, before])).toEqual([
      [1, true],
      [1, false],
      [0, false],
    ]);
  });
  it("leaves out what is none", () => {
    for (const payload of [null, "text", 3, {}, { n: 1, boot: 2 }, { text: "x", n: "1", boot: 2 }]) {
      expect(lineOf(payload)).toBeNull();
    }
    expect(lineOf({ n: 1, boot: 2, text: "x", level: "shout" })?.level).toBe("info");
  });
});

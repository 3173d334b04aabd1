/** How a board is, by what it says of itself on `diag` and `log`; docs/sensors.md has the members. */
import { formatBytes, formatNumber, formatSpan } from "./format.ts";
import { t } from "./words.ts";

/** A line of a board's log. */
export interface Line {
  n: number;
  boot: number;
  /** Seconds since the board's start. */
  up: number;
  /** Seconds since 1970; null until its clock was set. */
  ts: number | null;
  level: "debug" | "info" | "warning" | "error";
  text: string;
  before: boolean;
}

const LEVELS = ["debug", "info", "warning", "error"] as const;
const KEPT = 200;

/** The topic above a board's own ones, of the topic that announces it; null for what is no sensor of ours. */
export function boardBase(announcements: readonly string[]): string | null {
  const meta = announcements.find((topic) => /^sensors\/[^/]+\/meta$/.test(topic));
  return meta === undefined ? null : meta.slice(0, -"/meta".length);
}

const CAUSES: Readonly<Record<string, string>> = {
  power: t("power"),
  reset: t("a reset"),
  watchdog: t("the watchdog: the program hung"),
  "deep sleep": t("deep sleep"),
  "soft reset": t("a soft reset"),
  unknown: t("unknown"),
};

const number = (value: unknown): number | null => (typeof value === "number" && Number.isFinite(value) ? value : null);

/** What stands on the page, name and value, in an order that people ask in; what the board does not say is left out. */
export function healthRows(diag: Readonly<Record<string, unknown>>): [string, string][] {
  const rows: [string, string][] = [];
  const add = (member: string, name: string, form: (value: number) => string) => {
    const value = number(diag[member]);
    if (value !== null) rows.push([name, form(value)]);
  };
  if (typeof diag.started_by === "string") rows.push([t("Started by"), CAUSES[diag.started_by] ?? diag.started_by]);
  add("uptime", t("Running for"), (value) => formatSpan(value * 1000));
  add("boot", t("Restarts"), String);
  const quality = number(diag.wifi_quality);
  const rssi = number(diag.rssi);
  if (quality !== null || rssi !== null) {
    const parts = [quality === null ? "" : `${quality} %`, rssi === null ? "" : `${rssi} dBm`];
    rows.push([t("Wi-Fi"), parts.filter(Boolean).join(", ")]);
  }
  add("wifi_joins", t("Joined the Wi-Fi"), (value) => `${value}×`);
  add("reconnects", t("Reconnected to the broker"), (value) => `${value}×`);
  add("dropped", t("Readings given up"), String);
  add("heap_free", t("Free memory"), formatBytes);
  add("heap_lowest", t("At least free"), formatBytes);
  add("awake", t("Awake for"), (value) => formatSpan(value * 1000));
  add("battery_days", t("Battery lasts, estimated"), (value) => t("{count} days", { count: formatNumber(value, 3) }));
  return rows;
}

/** A line of the log; null for anything else. */
export function lineOf(payload: unknown): Line | null {
  if (typeof payload !== "object" || payload === null) return null;
  const { n, boot, up, ts, level, text, before } = payload as Record<string, unknown>;
  if (typeof text !== "string" || number(n) === null || number(boot) === null) return null;
  return {
    n: n as number,
    boot: boot as number,
    up: number(up) ?? 0,
    ts: number(ts),
    level: LEVELS.find((each) => each === level) ?? "info",
    text,
    before: before === true,
  };
}

/** The lines with one more, each once, the newest first. */
export function withLine(lines: readonly Line[], line: Line): readonly Line[] {
  if (lines.some(({ boot, n, before }) => boot === line.boot && n === line.n && before === line.before)) return lines;
  return [line, ...lines].slice(0, KEPT);
}

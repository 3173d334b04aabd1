/** Alerts as the gateway tells them, and what of them is news. */
import { t } from "./words.ts";

type AlertState = "ok" | "pending" | "firing";

export interface Alert {
  name: string;
  state: AlertState;
  /** Milliseconds since 1970; null where that isn't told. */
  since: number | null;
  /** How many topics fire. */
  firing: number;
  summary: string;
  /** The topic that fires for longest; "" for none. */
  topic: string;
}

const STATES: readonly string[] = ["ok", "pending", "firing"];

/** What is said of an alert: in the visitor's words where they are the gateway's, else as the rule has it. */
function summaryWords(entry: Record<string, unknown>): string {
  const { summary, reason, topic, value, silent, firing, pending } = entry;
  if (typeof summary !== "string") return "";
  const more = (Number(firing) || Number(pending)) - 1;
  const end = ` and ${more} more`;
  const isMore = more > 0 && summary.endsWith(end);
  let words = isMore ? summary.slice(0, -end.length) : summary;
  if (typeof topic === "string" && reason === "silent" && typeof silent === "string") {
    words = t("{topic}: silent for {silent}", { topic, silent });
  } else if (typeof topic === "string" && reason === "offline" && typeof value === "string") {
    words = t("{value} is offline ({topic})", { value, topic });
  }
  return isMore ? t("{words} and {more} more", { words, more }) : words;
}

/** The alerts in an answer of `/alerts`; what is none is left out. */
export function readAlerts(body: unknown): Alert[] {
  const list = (body as { alerts?: unknown } | null)?.alerts;
  if (!Array.isArray(list)) return [];
  const found: Alert[] = [];
  for (const entry of list as (Record<string, unknown> | null)[]) {
    if (entry === null || typeof entry !== "object") continue;
    const { name, state, since, firing, topic } = entry;
    if (typeof name !== "string" || typeof state !== "string" || !STATES.includes(state)) continue;
    found.push({
      name,
      state: state as AlertState,
      since: typeof since === "number" ? since : null,
      firing: typeof firing === "number" ? firing : 0,
      summary: summaryWords(entry),
      topic: typeof topic === "string" ? topic : "",
    });
  }
  return found;
}

/** Those that fire, the newest first. */
export function firingOf(alerts: readonly Alert[]): Alert[] {
  return alerts.filter((alert) => alert.state === "firing").sort((a, b) => (b.since ?? 0) - (a.since ?? 0));
}

/** Those that fire and did not before, or for more topics than before. */
export function newlyFiring(before: readonly Alert[], after: readonly Alert[]): Alert[] {
  const had = new Map(firingOf(before).map((alert) => [alert.name, alert.firing]));
  return firingOf(after).filter((alert) => alert.firing > (had.get(alert.name) ?? 0));
}

/** The title of the tab, with the number of alerts that fire before it. */
export function titleWith(firing: number, title: string): string {
  return firing > 0 ? `(${firing}) ${title}` : title;
}

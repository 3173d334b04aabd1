/** Alerts as the gateway tells them, and what of them is news. */

export type AlertState = "ok" | "pending" | "firing";

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

/** The alerts in an answer of `/alerts`; what is none is left out. */
export function readAlerts(body: unknown): Alert[] {
  const list = (body as { alerts?: unknown } | null)?.alerts;
  if (!Array.isArray(list)) return [];
  const found: Alert[] = [];
  for (const entry of list as (Record<string, unknown> | null)[]) {
    if (entry === null || typeof entry !== "object") continue;
    const { name, state, since, firing, summary, topic } = entry;
    if (typeof name !== "string" || typeof state !== "string" || !STATES.includes(state)) continue;
    found.push({
      name,
      state: state as AlertState,
      since: typeof since === "number" ? since : null,
      firing: typeof firing === "number" ? firing : 0,
      summary: typeof summary === "string" ? summary : "",
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

/** The alerts of this gateway: asked for now and then, as long as there are any. */
import { computed, effect, signal } from "@preact/signals";
import * as api from "./api.ts";
import { type Alert, firingOf, newlyFiring } from "./core/alerts.ts";
import { link, token } from "./session.ts";

const EVERY_MS = 5_000;

/** As told last; empty where none is set, or none may be seen. */
export const alerts = signal<readonly Alert[]>([]);
export const firing = computed(() => firingOf(alerts.value));
/** Whether this browser tells of alerts by notifications: it asks first, and only when it was asked to. */
const notifies = signal(typeof Notification !== "undefined" && Notification.permission === "granted");
/** Whether it may be asked to. */
export const mayAsk = signal(typeof Notification !== "undefined" && Notification.permission === "default");

const isOpen = computed(() => link.value.state === "open");
let timer = 0;
let asking = 0;
let isFirst = true;

export async function askToNotify(): Promise<void> {
  const answer = await Notification.requestPermission();
  notifies.value = answer === "granted";
  mayAsk.value = answer === "default";
}

function notify(news: readonly Alert[]): void {
  if (!notifies.value) return;
  for (const alert of news) {
    try {
      // One for each alert: a newer one takes the place of the older.
      new Notification(alert.name, { body: alert.summary, tag: `gateway-alert-${alert.name}` });
    } catch {
      // Chrome on Android has them in service workers only.
      notifies.value = false;
    }
  }
}

async function ask(): Promise<void> {
  const number = ++asking;
  let goesOn = true;
  clearTimeout(timer);
  try {
    const found = await api.alerts();
    if (number !== asking) return;
    // What fires already when the page opens is shown, not told as news.
    if (!isFirst) notify(newlyFiring(alerts.value, found));
    isFirst = false;
    alerts.value = found;
    // Without any there is nothing to wait for: a gateway that is set anew cuts the connection, and then it is asked.
    goesOn = found.length > 0;
  } catch (error) {
    // The banner says that the gateway is away; what was told last stays. A refusal is not asked for over and over.
    goesOn = !(error instanceof api.ApiError);
  }
  if (number === asking && goesOn) timer = window.setTimeout(() => void ask(), EVERY_MS);
}

/** Asks from now on: at once, when the connection was made again, and for each visitor anew. */
export function watchAlerts(): void {
  let visitor = token.peek();
  effect(() => {
    const open = isOpen.value;
    if (token.value !== visitor) {
      visitor = token.value;
      alerts.value = [];
      isFirst = true;
    }
    if (open || isFirst) void ask();
  });
}

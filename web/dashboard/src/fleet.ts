/** The devices of this page: one feed, kept for a while when the view goes, so that coming back costs nothing. */
import { signal } from "@preact/signals";
import { type Device, Fleet } from "./core/devices.ts";
import { oneQuestion, trendKey, type WantedTrend } from "./core/trends.ts";
import { readableOf } from "./identity.ts";
import { type Feed, gatewayNow, openFeed, token } from "./session.ts";
import { loadTrends } from "./trends.ts";

export const FILTERS = ["sensors/+/meta", "sensors/+/status", "sensors/+/state"];
const LINGER_MS = 60_000;

export const fleet = new Fleet();
/** The retained and last values are in: what isn't there now isn't there. */
export const settled = signal(false);

/** Counts up when histories have come, once a frame: lines needn't wait for the next turn of the clock. */
export const arrived = signal(0);

let arriving = 0;

function announce(): void {
  if (arriving !== 0) return;
  arriving = requestAnimationFrame(() => {
    arriving = 0;
    arrived.value++;
  });
}

let feed: Feed | null = null;
/** Whose feed it is: what one visitor may see isn't the next one's. */
let visitor: string | null = null;
let users = 0;
let closing = 0;
let settling = 0;

function settleSoon(): void {
  clearTimeout(settling);
  settling = window.setTimeout(() => {
    settled.value = true;
  }, 120);
}

/** Opens the feed for a view, once it is known what the visitor may read; what it returns lets it go again. */
export function holdFleetFeed(): () => void {
  users++;
  clearTimeout(closing);
  if (visitor !== token.value) {
    visitor = token.value;
    feed?.close();
    feed = null;
    fleet.clear();
    settled.value = false;
  }
  if (!feed) {
    for (const device of fleet.devices.values()) if (device.history !== "loading") device.history = "none";
    const topics = readableOf(FILTERS);
    let subscribed = false;
    // Who may read nothing of sensors has none: no need to be refused.
    if (topics.length === 0) settleSoon();
    feed = openFeed({
      topics,
      since: "last",
      maxHz: 1,
      onMessage: (message) => {
        fleet.note(message);
        if (subscribed && !settled.value) settleSoon();
      },
      onSubscribed: () => {
        subscribed = true;
        settleSoon();
      },
    });
  }
  return () => {
    users--;
    if (users > 0) return;
    closing = window.setTimeout(() => {
      feed?.close();
      feed = null;
      settled.value = false;
    }, LINGER_MS);
  };
}

interface Wanted extends WantedTrend {
  device: Device;
}

let wanted: readonly Wanted[] = [];
let isAsking = false;

/** Asks for the past of the devices in view, one question at a time; what scrolled by meanwhile is dropped. */
export function wantHistory(devices: readonly Device[]): void {
  wanted = devices.flatMap((device): Wanted[] => {
    const field = device.history === "none" ? fleet.trendOf(device) : null;
    return field === null ? [] : [{ device, field, topic: `sensors/${device.id}/state` }];
  });
  work();
}

function work(): void {
  if (isAsking || wanted.length === 0) return;
  const asked = oneQuestion(wanted);
  wanted = wanted.filter((each) => !asked.includes(each));
  isAsking = true;
  load(asked).finally(() => {
    isAsking = false;
    work();
  });
}

async function load(asked: readonly Wanted[]): Promise<void> {
  for (const { device } of asked) device.history = "loading";
  const askedAt = gatewayNow();
  try {
    const found = await loadTrends(asked);
    for (const each of asked) {
      const { device, field } = each;
      if (fleet.trendOf(device) === field) fleet.fillTrend(device, field, found.get(trendKey(each)) ?? null, askedAt);
      else device.history = "none";
    }
    announce();
  } catch {
    // The lines then start when the page opened; the next visit asks again.
    for (const { device } of asked) device.history = "failed";
  }
}

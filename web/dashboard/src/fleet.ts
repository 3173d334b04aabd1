/** The devices of this page: one feed, kept for a while when the view goes, so that coming back costs nothing. */
import { signal } from "@preact/signals";
import * as api from "./api.ts";
import { type Device, Fleet } from "./core/devices.ts";
import type { Field } from "./core/values.ts";
import { readableOf } from "./identity.ts";
import { type Feed, openFeed, token } from "./session.ts";

export const FILTERS = ["sensors/+/meta", "sensors/+/status", "sensors/+/state"];
/** The longest that a sparkline shows. */
const TREND_SINCE = "15m";
/** Requests for history at a time: browsers open six connections to a host, and the feed needs one. */
const PARALLEL = 4;
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

const waiting = new Map<string, { device: Device; field: Field }>();
let running = 0;

/** Asks for the past of the devices in view; the newest request goes first, what scrolled by is dropped. */
export function wantHistory(devices: readonly Device[]): void {
  waiting.clear();
  for (const device of devices) {
    if (device.history !== "none") continue;
    const field = fleet.trendOf(device);
    if (field !== null) waiting.set(device.id, { device, field });
  }
  work();
}

function work(): void {
  while (running < PARALLEL && waiting.size > 0) {
    const [id, next] = waiting.entries().next().value as [string, { device: Device; field: Field }];
    waiting.delete(id);
    running++;
    load(next.device, next.field).finally(() => {
      running--;
      work();
    });
  }
}

async function load(device: Device, field: Field): Promise<void> {
  device.history = "loading";
  try {
    const points = await api.trend(`sensors/${device.id}/state`, field, TREND_SINCE);
    if (fleet.trendOf(device) !== field) {
      device.history = "none";
      return;
    }
    // History teaches the rhythm as well: a device that spoke each ten seconds until an hour ago is stale at once.
    if (!device.rhythm.learnt) device.rhythm.learn(points.map((point) => point.time));
    fleet.fillTrend(device, field, points);
    announce();
  } catch {
    // The line then starts when the page opened; the next visit asks again.
    device.history = "failed";
  }
}

/** The devices of this page: one feed, kept for a while when the view goes, so that coming back costs nothing. */
import { signal } from "@preact/signals";
import * as api from "./api.ts";
import { type Announced, topicsOf } from "./core/announced.ts";
import { type Device, Fleet } from "./core/devices.ts";
import { oneQuestion, trendKey, type WantedTrend } from "./core/trends.ts";
import type { Field } from "./core/values.ts";
import { readableOf } from "./identity.ts";
import { type Feed, gatewayNow, openFeed, token } from "./session.ts";
import { loadTrends } from "./trends.ts";

export const FILTERS = ["sensors/+/meta", "sensors/+/status", "sensors/+/state"];
const LINGER_MS = 60_000;
/** Topics of devices in view that are subscribed to; a subscriber may have a hundred filters. */
const LIVE_TOPICS = 96;
/** Messages a second of a topic that says one thing at a time. */
const PARTS_HZ = 20;
const LIVE_DELAY_MS = 250;
const AGAIN_MS = 5_000;

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

/** The first values of our own sensors are in; all devices that the gateway knows have come. */
let hasValues = false;
let hasDevices = false;

function settleSoon(): void {
  hasValues = true;
  clearTimeout(settling);
  settling = window.setTimeout(() => {
    settled.value = hasDevices;
  }, 120);
}

/** The stream of what the gateway knows of devices, and what ends it. */
let telling: AbortController | null = null;

/** Resolves when somebody can see the page. */
function shown(): Promise<void> {
  if (document.visibilityState !== "hidden") return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.visibilityState === "hidden") return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
  });
}

/** Follows what the gateway tells of devices, until it is told to stop; comes back after a cut. */
async function follow(ending: AbortController): Promise<void> {
  /** Those of whom nothing has come since the stream began. */
  let unheard = new Set<string>();
  while (!ending.signal.aborted) {
    await shown();
    // Browsers open six connections to a host for all tabs together: one that nobody looks at gives its own back.
    const attempt = new AbortController();
    const stop = () => {
      if (ending.signal.aborted || document.visibilityState === "hidden") attempt.abort();
    };
    ending.signal.addEventListener("abort", stop);
    document.addEventListener("visibilitychange", stop);
    stop();
    try {
      await api.deviceEvents(attempt.signal, (event, data) => {
        if (event === "devices") unheard = new Set(announced);
        else if (event === "device") {
          const told = data as Announced;
          announced.add(told.id);
          unheard.delete(told.id);
          fleet.announce(told);
        } else if (event === "gone") drop((data as { id: string }).id);
        else if (event === "known") {
          for (const id of unheard) drop(id);
          unheard.clear();
          hasDevices = true;
          if (hasValues) settleSoon();
        }
        announce();
      });
    } catch {
      // An older gateway has no devices, a cut connection will be back: the list lives on either way.
    } finally {
      ending.signal.removeEventListener("abort", stop);
      document.removeEventListener("visibilitychange", stop);
    }
    hasDevices = true;
    if (hasValues && !ending.signal.aborted) settleSoon();
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

/** The ids of those that the gateway told of. */
const announced = new Set<string>();

function drop(id: string): void {
  announced.delete(id);
  fleet.forget(id);
}

let liveFeed: Feed | null = null;
let liveTopics = "";
let choosing = 0;

/** Subscribes to the values of those devices in view that the gateway told of. */
export function wantLive(devices: readonly Device[]): void {
  const topics = topicsOf(devices.flatMap((device) => [...(device.places?.values() ?? [])]));
  const wanted = [...topics].slice(0, LIVE_TOPICS).sort();
  const partial = devices.filter((device) => device.isPartial);
  const pace = devices.some((device) => device.speaksInParts) ? PARTS_HZ : 1;
  const key = [pace, ...wanted].join("\n");
  if (key === liveTopics) return;
  clearTimeout(choosing);
  choosing = window.setTimeout(() => {
    if (key === liveTopics) return;
    liveTopics = key;
    liveFeed?.close();
    liveFeed =
      wanted.length === 0
        ? null
        : openFeed({
            topics: wanted,
            since: "last",
            ...(partial.length > 0 ? {} : { maxHz: pace }),
            onMessage: (message) => void fleet.note(message),
          });
    for (const device of partial) void fill(device);
  }, LIVE_DELAY_MS);
}

const filled = new WeakSet<Device>();

/** Asks for values of a device whose newest message has only some. */
async function fill(device: Device): Promise<void> {
  if (filled.has(device)) return;
  filled.add(device);
  try {
    fleet.fill(device, (await api.device(device.id)).values);
    announce();
  } catch {
    // then they are shown when they change
    filled.delete(device);
  }
}

function closeAll(): void {
  feed?.close();
  feed = null;
  liveFeed?.close();
  liveFeed = null;
  liveTopics = "";
  hasValues = false;
}

function stopTelling(): void {
  telling?.abort();
  telling = null;
  hasDevices = false;
}

let listeners = 0;
let stopping = 0;

/** Another visitor has other devices. */
function forgetOthers(): void {
  if (visitor === token.value) return;
  visitor = token.value;
  closeAll();
  stopTelling();
  announced.clear();
  fleet.clear();
  settled.value = false;
}

/** Follows which devices there are, with their names and units, not their values; what it returns ends that. */
export function holdDevices(): () => void {
  listeners++;
  clearTimeout(stopping);
  forgetOthers();
  if (!telling) {
    telling = new AbortController();
    void follow(telling);
  }
  return () => {
    listeners--;
    if (listeners === 0) stopping = window.setTimeout(stopTelling, LINGER_MS);
  };
}

/** Opens the feed for a view, once it is known what the visitor may read; what it returns lets it go again. */
export function holdFleetFeed(): () => void {
  users++;
  clearTimeout(closing);
  const letGo = holdDevices();
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
    letGo();
    if (users > 0) return;
    closing = window.setTimeout(() => {
      closeAll();
      settled.value = false;
    }, LINGER_MS);
  };
}

interface Wanted extends WantedTrend {
  device: Device;
  /** What the device calls what is asked for. */
  trend: Field;
}

let wanted: readonly Wanted[] = [];
let isAsking = false;

/** Asks for the past of the devices in view, one question at a time; what scrolled by meanwhile is dropped. */
export function wantHistory(devices: readonly Device[]): void {
  wanted = devices.flatMap((device): Wanted[] => {
    const trend = device.history === "none" ? fleet.trendOf(device) : null;
    if (trend === null) return [];
    const { topic, path } = device.place(trend);
    return [{ device, trend, topic, field: path }];
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
      const { device, trend } = each;
      if (fleet.trendOf(device) === trend) fleet.fillTrend(device, trend, found.get(trendKey(each)) ?? null, askedAt);
      else device.history = "none";
    }
    announce();
  } catch {
    // The lines then start when the page opened; the next visit asks again.
    for (const { device } of asked) device.history = "failed";
  }
}

/**
 * The page's links to the gateway: feeds, who the visitor is, and what the connection has been like.
 *
 * Each view opens the feed it needs and closes it when it goes; what all feeds saw is added up here.
 */

import { computed, signal } from "@preact/signals";
import { connect, type Gap, type Live, type Message, type State } from "gateway-live";
import { CLOSE_CODES } from "gateway-live/protocol";
import { addLoss, Ledger, type Losses } from "./core/losses.ts";
import { Rate } from "./core/rhythm.ts";
import { Skew } from "./core/skew.ts";
import { closeWords, errorWords } from "./core/told.ts";
import { t } from "./core/words.ts";
import { base } from "./router.ts";

const TOKEN_KEY = "gateway.token";

function stored(): string | null {
  try {
    return sessionStorage.getItem(TOKEN_KEY);
  } catch {
    return null;
  }
}

/**
 * The token of a link that was shared: behind "#", which browsers send to nobody. It is kept as one that was entered, and
 * taken out of the address.
 */
function takeLinked(): void {
  const found = /^#token=([\w.-]{1,8192})$/.exec(location.hash)?.[1];
  if (found === undefined) return;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    sessionStorage.setItem(TOKEN_KEY, found);
  } catch {
    linked = found;
  }
}

let linked: string | null = null;
takeLinked();

/** The token of this tab, kept until the tab is closed; null: as an anonymous visitor. */
export const token = signal<string | null>(linked ?? stored());

export function signIn(text: string): void {
  try {
    sessionStorage.setItem(TOKEN_KEY, text);
  } catch {
    // Without storage the token lives as long as the page.
  }
  denied.value = lockedOut.value = endsAt.value = null;
  hasExpired.value = false;
  token.value = text;
}

export function signOut(): void {
  try {
    sessionStorage.removeItem(TOKEN_KEY);
  } catch {
    // Nothing was kept.
  }
  denied.value = lockedOut.value = endsAt.value = null;
  hasExpired.value = false;
  token.value = null;
}

export interface Link {
  state: State;
  code: number | null;
  reason: string | null;
  /** When the next attempt is made, by this machine's clock. */
  retryAt: number | null;
}

export interface Denial {
  code: string;
  /** What in particular; null where `code` says all. */
  reason: string | null;
  message: string;
}

/**
 * The gateway's link to the broker; null until it was told. `lostAt` is the moment at which it was lost, by the gateway's
 * clock; null while it is there, or has not been yet.
 */
export const upstream = signal<{ connected: boolean; reason: string | null; lostAt: number | null } | null>(null);
/** When the token ends, by this machine's clock, as the gateway has warned; null before. */
export const endsAt = signal<number | null>(null);
/** Whether this page's token has ended while it was looked at: what it shows stays. */
export const hasExpired = signal(false);
/** Whether what arrives is kept in the gateway's archive; null until something was told, and where there is none. */
export const archive = signal<{ kept: boolean; reason: string | null } | null>(null);
/** Why the gateway doesn't let this visitor see what this view asked for; null while it does. */
export const denied = signal<Denial | null>(null);
/** Why this visitor may read nothing at all; null where something may be read, or it isn't known yet. */
export const lockedOut = signal<Denial | null>(null);
/** What stands between this visitor and the view, null when nothing does. */
export const refusal = computed<Denial | null>(() => lockedOut.value ?? denied.value);
export const losses = signal<readonly Losses[]>([]);
/** The life of the gateway's history that positions belong to; null until a position was seen. */
export const epoch = signal<string | null>(null);
/** Milliseconds there and back, the latest. */
export const roundTrip = signal<number | null>(null);

const links = signal<ReadonlyMap<Feed, Link>>(new Map());
const ORDER: readonly State[] = ["closed", "waiting", "connecting", "paused", "open"];

/** The worst of the open feeds. */
export const link = computed<Link>(() => {
  let worst: Link | null = null;
  for (const entry of links.value.values()) {
    if (!worst || ORDER.indexOf(entry.state) < ORDER.indexOf(worst.state)) worst = entry;
  }
  return worst ?? { state: "connecting", code: null, reason: null, retryAt: null };
});

/** Counted since the page opened; read, never watched: they change thousands of times a second. */
export const totals = { received: 0, skipped: 0, rate: new Rate(10), reconnects: 0 };

const skew = new Skew();

/**
 * The gateway's clock, as well as it is known. A message's age here is the network's delay plus the difference of the
 * clocks; the smallest age seen, less half a round trip, is that difference. Under a second it is taken for nothing:
 * delays would do as well to explain it.
 */
export function gatewayNow(): number {
  return Date.now() - (clockSkew() ?? 0);
}

/** When the gateway was heard last, by this machine's clock; null: never. */
let heardAt: number | null = null;
/** The newest message's time, by the gateway's clock. */
let newestTime: number | null = null;

/** Whether what is shown can be news: the gateway is there, and the broker behind it. */
export const isLive = computed(() => link.value.state === "open" && upstream.value?.connected !== false);

/** Whether any message came: else there is nothing to be seen as of any moment. */
export const hasSeen = (): boolean => newestTime !== null;

/** Null while what is shown is live; else the moment that it shows, by the gateway's clock. */
export function stoodStillAt(): number | null {
  const state = link.value.state;
  if ((state === "waiting" || state === "closed" || state === "connecting") && heardAt !== null) {
    return heardAt - (clockSkew() ?? 0);
  }
  if (state === "open" && upstream.value?.connected === false) {
    return upstream.value.lostAt ?? newestTime ?? gatewayNow();
  }
  return null;
}

/**
 * The moment that views show, by the gateway's clock. It stands still while nothing can arrive: that nobody hears of
 * a device doesn't make it late.
 */
export function viewNow(): number {
  return stoodStillAt() ?? gatewayNow();
}

/** Milliseconds this machine's clock is ahead of the gateway's; null until it could be estimated. */
export function clockSkew(): number | null {
  return skew.value !== null && Math.abs(skew.value) <= 1000 ? 0 : skew.value;
}

function noteAge(message: Message, live: boolean): void {
  if (!live || message.skipped) return;
  skew.note({ sent: message.time, now: Date.now(), steady: performance.now(), trip: roundTrip.value ?? 0 });
}

const ledger = new Ledger();
/** The last life of the gateway's history whose beginning was counted as a loss. */
let countedLife: string | null = null;

/** How often the round trip is measured. */
const PING_MS = 5000;

interface FeedOptions {
  topics: string | readonly string[];
  since?: string;
  maxHz?: number;
  hiddenHz?: number;
  onMessage: (message: Message, replayed: boolean) => void;
  onGap?: (gap: Gap) => void;
  /** The gateway refused what was asked for, and not for want of a grant; or this page made no sense to it. */
  onError?: (code: string, message: string) => void;
  /** What is refused to it is no refusal of the view. */
  isCourtesy?: boolean;
  /** The gateway took the subscription: an empty view may now say that it is empty. */
  onSubscribed?: (position: string, recovered: boolean | undefined) => void;
}

export interface Feed {
  readonly live: Live;
  close(): void;
}

export const socketAddress = (() => {
  const address = new URL("./ws", base);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
})();

/** Codes of errors that signing in may cure. */
const DENIALS = new Set(["forbidden", "unauthorized", "token"]);

/** Reasons that pass by themselves: the client tries again. */
const NOT_NOW = new Set(["failed_tokens", "keys_unavailable"]);

const DENIAL_CLOSES = new Set<number>([CLOSE_CODES.UNAUTHORIZED, CLOSE_CODES.FORBIDDEN, CLOSE_CODES.TOKEN_EXPIRED]);

function setLink(feed: Feed, entry: Link | null): void {
  const next = new Map(links.value);
  if (entry) next.set(feed, entry);
  else next.delete(feed);
  links.value = next;
}

export function openFeed(options: FeedOptions): Feed {
  const held = token.value;
  // Up to the position that the gateway answered with, messages are from history; those after it are news.
  let liveFrom: number | null = null;
  /** The life of the gateway's history that this feed is in, and the last one whose beginning it was told of. */
  let life: string | null = null;
  let toldOf: string | null = null;
  /** The number at which it began in that life. */
  let begun: number | null = null;
  const live = connect(socketAddress, {
    topics: options.topics,
    ...(options.since === undefined ? {} : { since: options.since }),
    ...(options.maxHz === undefined ? {} : { maxHz: options.maxHz }),
    ...(options.hiddenHz === undefined ? {} : { hiddenHz: options.hiddenHz }),
    ...(held === null ? {} : { token: held }),
  });
  const measure = () => {
    if (live.state !== "open" || document.visibilityState === "hidden") return;
    live.ping().then(
      (milliseconds) => {
        roundTrip.value = milliseconds;
        heardAt = Date.now();
      },
      () => undefined,
    );
  };
  const pinging = setInterval(measure, PING_MS);
  const feed: Feed = {
    live,
    close() {
      clearInterval(pinging);
      setLink(feed, null);
      live.close();
    },
  };
  setLink(feed, { state: live.state, code: null, reason: null, retryAt: null });

  live.on("message", (message) => {
    const replayed = liveFrom === null || message.seq <= liveFrom;
    heardAt = Date.now();
    if (newestTime === null || message.time > newestTime) newestTime = message.time;
    totals.received++;
    if (message.skipped) totals.skipped += message.skipped;
    if (!replayed) totals.rate.note(message.time, 1 + (message.skipped ?? 0));
    noteAge(message, !replayed);
    options.onMessage(message, replayed);
  });
  live.on("gap", (gap) => {
    // Each subscription is told of a restart, by its own connection or on the same one: it is one loss all the same.
    const isRestart = gap.reason === "epoch";
    if (isRestart && toldOf === life) return;
    if (isRestart) toldOf = life;
    const isNews = isRestart ? life !== countedLife : ledger.isNews(gap, life, begun);
    if (isNews) losses.value = addLoss(losses.value, gap.reason, gap.lost);
    if (isRestart) countedLife = life;
    options.onGap?.(gap);
  });
  live.on("subscribed", (event) => {
    if (!options.isCourtesy) denied.value = null;
    heardAt = Date.now();
    const [name = null, seq] = event.position.split(":");
    if (name !== life) begun = life === null ? Number(seq) : 0;
    epoch.value = life = name;
    liveFrom = Number(seq);
    options.onSubscribed?.(event.position, event.recovered);
  });
  let openedAt = Number.POSITIVE_INFINITY;
  // The gateway says at once when the broker is away, and nothing when it is there.
  let told = false;
  // The same holds for the archive.
  let archiveTold = false;
  live.on("upstream", (event) => {
    told = true;
    upstream.value = { connected: event.connected, reason: event.reason ?? null, lostAt: event.lost_at ?? null };
  });
  live.on("expiring", ({ seconds }) => {
    endsAt.value = Date.now() + seconds * 1000;
  });
  live.on("archive", (event) => {
    archiveTold = true;
    archive.value = { kept: event.kept, reason: event.reason ?? null };
  });
  live.on("error", (error) => {
    const isDenial = DENIALS.has(error.code) && !NOT_NOW.has(error.reason ?? "");
    if (isDenial && options.isCourtesy) return;
    const message = errorWords(error.code, error.message, error.reason);
    if (isDenial) denied.value = { code: error.code, reason: error.reason ?? null, message };
    else options.onError?.(error.code, message);
  });
  live.on("state", (event) => {
    if (!links.value.has(feed)) return;
    if (event.state === "waiting" && links.value.get(feed)?.state === "open") totals.reconnects++;
    setLink(feed, {
      state: event.state,
      code: event.code ?? null,
      reason: event.reason ?? null,
      retryAt: event.delay === undefined ? null : Date.now() + event.delay,
    });
    if (event.state === "closed" && event.code !== undefined && denied.value === null) {
      if (event.code === CLOSE_CODES.TOKEN_EXPIRED && openedAt !== Number.POSITIVE_INFINITY) hasExpired.value = true;
      else if (DENIAL_CLOSES.has(event.code)) {
        const message = closeWords(event.code, event.reason ?? null) || t("The gateway closed the connection.");
        denied.value = { code: String(event.code), reason: null, message };
      }
    }
    if (event.state === "connecting") told = archiveTold = false;
    if (event.state === "open") {
      openedAt = heardAt = Date.now();
      if (!told) upstream.value = { connected: true, reason: null, lostAt: null };
      if (!archiveTold) archive.value = null;
      measure();
    }
  });
  return feed;
}

/** What the gateway answers to questions, as promises: last values, history, devices, alerts. */
import { list } from "./options.js";
import type { Gap, LiveError, Message } from "./types.js";

/** A value of a device: where it arrives, and what it is. */
export interface DeviceField {
  id: string;
  name: string;
  kind: "number" | "state" | "text" | "image";
  /** Empty where nobody says it, as is `device_class`. */
  unit: string;
  /** The quantity in Home Assistant's words, such as `temperature`. */
  device_class: string;
  topic: string;
  /** Where in the payload it stands; "" is the payload itself, null where it is `metric`, `template` or has a `problem`. */
  path: string | null;
  /** The value is what stands there times this, plus `offset`. */
  scale?: number;
  offset?: number;
  metric?: string;
  template?: string;
  /** Why its value can't be had. */
  problem?: string;
  /** It tells of the device more than of what it measures. */
  diagnostic?: true;
}

/** What a device can be told: publish to `topic` the payload of a choice, or `before` + value + `after`. */
export interface DeviceCommand {
  id: string;
  name: string;
  kind: "switch" | "number" | "select" | "button" | "text";
  topic: string;
  payloads?: Record<string, string>;
  before?: string;
  after?: string;
  /** A text is written as a JSON string. */
  json?: true;
  min?: number;
  max?: number;
  step?: number;
  unit?: string;
  /** The id of the field that shows the outcome. */
  field?: string;
  retain?: true;
  problem?: string;
}

/** What announced itself on the broker, as far as the token covers it. */
export interface Device {
  id: string;
  name: string;
  kind: string;
  model: string;
  manufacturer: string;
  area: string;
  version: string;
  announced_by: string[];
  availability: "online" | "offline" | "sleeping" | "unknown";
  /** When its newest value came, milliseconds since 1970. */
  seen: number | null;
  fields: DeviceField[];
  commands: DeviceCommand[];
  /** The topics that announce it, and nothing else: cleared, they take it away. */
  announcements: string[];
}

/** An alert that is set, as far as the token covers what it watches. */
export interface Alert {
  name: string;
  state: "ok" | "pending" | "firing";
  /** When it came to be so, in milliseconds since 1970; null where nothing has come yet. */
  since: number | null;
  firing: number;
  pending: number;
  /** Topics that had no room. */
  left_out: number;
  /** The topic that fires longest, its value, and what is said of it. */
  topic?: string;
  value?: unknown;
  summary?: string;
  /** Why it fires, where `summary` is the gateway's own wording of that. */
  reason?: "where" | "silent" | "offline";
  /** How long it has to be silent, such as `10m`. */
  silent?: string;
  topics: { topic: string; state: "pending" | "firing"; since: number; value?: unknown }[];
}

export interface AskOptions {
  /** Where the gateway is, absolute or relative to the page: beside the page unless told. */
  url?: string | URL | undefined;
  /** An access token, or what fetches one. */
  token?: string | (() => string | Promise<string>) | undefined;
  /** Ends the request. */
  signal?: AbortSignal | undefined;
}

export interface LastOptions extends AskOptions {
  /** Only messages for which this holds, such as `temperature > 30`. */
  where?: string | undefined;
  /** Only these members of a JSON payload. */
  fields?: readonly string[] | undefined;
  /** With MQTT 5 properties. */
  properties?: boolean | undefined;
}

export interface HistoryOptions extends LastOptions {
  /** A time back such as `10m`, an ISO time, or a position: all that is kept unless told. */
  since?: string | undefined;
  /** The last position or time that is wanted. */
  until?: string | undefined;
  /** `desc`: the newest first. */
  order?: "asc" | "desc" | undefined;
  /** The greatest number of messages: 10,000 unless told. */
  limit?: number | undefined;
}

export interface History<Payload = unknown> {
  messages: Message<Payload>[];
  /** What comes behind `messages`, or behind the newest of them: the `since` of a subscription or of the next question. */
  position: string;
  /** Whether everything between `since` and the end is there. */
  recovered: boolean;
  /** What is not, of the first page that lacks something. */
  gap?: Gap;
  /** There are more than `limit`. */
  more: boolean;
}

interface Page {
  messages?: Message<never>[];
  devices?: Device[];
  alerts?: Alert[];
  next?: string;
  position: string;
  recovered?: boolean;
  gap?: Gap;
  code?: string;
  detail?: string;
}

/** Messages on one page: as many as the gateway gives. */
const PAGE = 10_000;

type Query = Record<string, string | number | boolean | undefined>;

/** Asks for one page. */
async function ask(path: string, what: "messages" | "devices" | "alerts", query: Query, options: AskOptions) {
  const { url = "", token, signal } = options;
  const bearer = typeof token === "function" ? await token() : token;
  const headers: Record<string, string> = { accept: "application/json" };
  if (bearer) headers.authorization = `Bearer ${bearer}`;
  const base = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
  if (url !== "" && !base.pathname.endsWith("/")) base.pathname += "/";
  const address = new URL(path, base);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== false && value !== "") address.searchParams.append(name, String(value));
  }
  const answer = await fetch(address, { headers, ...(signal && { signal }) });
  const body = (await answer.json().catch(() => null)) as Page | null;
  if (!answer.ok || !body?.[what]) {
    const text = body?.detail ?? `${what}: the gateway answered ${answer.status}`;
    throw Object.assign(new Error(text), { code: body?.code ?? "internal" }) satisfies LiveError;
  }
  return body;
}

/** The path of one filter or several. What an address would take for a way up or for nothing is no level of its path. */
function pathOf(topics: string | readonly string[]): string {
  const [first = "#", ...others] = list(topics);
  const whole = encodeURIComponent(first);
  const path = `topics/${first.split("/").some((level) => /^\.{0,2}$/.test(level)) ? whole : whole.replaceAll("%2F", "/")}`;
  return others.length ? `${path}?${new URLSearchParams(others.map((topic) => ["topic", topic]))}` : path;
}

const shapeOf = ({ where, fields, properties }: LastOptions): Query => ({
  where,
  fields: fields?.join(","),
  properties,
});

/** The newest message of each topic, by topic: one page after the other, so that many hold up neither side. */
export async function last<Payload = unknown>(
  topics: string | readonly string[],
  options: LastOptions = {},
): Promise<Message<Payload>[]> {
  const found: Message<Payload>[] = [];
  for (let after: string | undefined = ""; after !== undefined; ) {
    const page: Page = await ask(pathOf(topics), "messages", { ...shapeOf(options), limit: PAGE, after }, options);
    found.push(...(page.messages as Message<Payload>[]));
    after = page.next;
  }
  return found;
}

/** What was published, in order. */
export async function history<Payload = unknown>(
  topics: string | readonly string[],
  options: HistoryOptions = {},
): Promise<History<Payload>> {
  const { since, until, order = "asc", limit = PAGE } = options;
  const shape = shapeOf(options);
  const range: Query = { since, until };
  const found: History<Payload> = { messages: [], position: "", recovered: true, more: false };
  do {
    const left = Math.min(PAGE, limit - found.messages.length);
    const page: Page = await ask(pathOf(topics), "messages", { ...shape, ...range, order, limit: left }, options);
    found.messages.push(...(page.messages as Message<Payload>[]));
    if (order === "asc") found.position = page.next ?? page.position;
    else found.position ||= page.position;
    if (page.recovered === false) found.recovered = false;
    if (page.gap) found.gap ??= page.gap;
    found.more = page.next !== undefined;
    range[order === "asc" ? "since" : "until"] = page.next;
    range.epoch = page.position.split(":")[0];
  } while (found.more && found.messages.length < limit);
  return found;
}

/** All devices, by id. */
export async function devices(options: AskOptions = {}): Promise<Device[]> {
  const found: Device[] = [];
  for (let after: string | undefined = ""; after !== undefined; ) {
    const page: Page = await ask("devices", "devices", { after }, options);
    found.push(...(page.devices ?? []));
    after = page.next;
  }
  return found;
}

/** All alerts that are set. */
export async function alerts(options: AskOptions = {}): Promise<Alert[]> {
  return (await ask("alerts", "alerts", {}, options)).alerts ?? [];
}

/** The gateway's HTTP side, as far as the dashboard asks it. Every address is relative to the page's base. */
import type { Message } from "gateway-live";
import { type Alert, readAlerts } from "./core/alerts.ts";
import type { AnnouncedDevice } from "./core/announced.ts";
import type { Broker } from "./core/boards.ts";
import { type Answer, parseAnswer } from "./core/columns.ts";
import { filterToPath } from "./core/filter.ts";
import { bytesFromBase64 } from "./core/hex.ts";
import type { Question } from "./core/past.ts";
import { errorWords } from "./core/told.ts";
import type { Listed } from "./core/tree.ts";
import { t } from "./core/words.ts";
import { base } from "./router.ts";
import { epoch, socketAddress, token } from "./session.ts";

export class ApiError extends Error {
  override name = "ApiError";

  /** @param reason what in particular; null where `code` says all. */
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly reason: string | null = null,
  ) {
    super(errorWords(code, message, reason));
  }
}

const ask = (path: string, accept: string, signal?: AbortSignal): Promise<Response> =>
  send(path, { headers: { Accept: accept }, ...(signal ? { signal } : {}) });

async function send(path: string, options: RequestInit & { headers: Record<string, string> }): Promise<Response> {
  if (token.value !== null) options.headers.Authorization = `Bearer ${token.value}`;
  const response = await fetch(new URL(path, base), options);
  if (response.ok) return response;
  let code = String(response.status);
  let text = response.statusText;
  let reason: string | null = null;
  try {
    // RFC 9457 problem details, with the gateway's stable code beside them.
    const problem = (await response.json()) as Record<string, unknown>;
    if (typeof problem.code === "string") code = problem.code;
    if (typeof problem.reason === "string") reason = problem.reason;
    if (typeof problem.detail === "string") text = problem.detail;
    else if (typeof problem.message === "string") text = problem.message;
    else if (typeof problem.title === "string") text = problem.title;
  } catch {
    // A proxy's page rather than the gateway's answer: the status must do.
  }
  throw new ApiError(response.status, code, text || `HTTP ${response.status}`, reason);
}

function query(parameters: Record<string, string | number | undefined>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) search.set(name, String(value));
  const text = search.toString();
  return text === "" ? "" : `?${text}`;
}

/** Topics of one question: their names are in its address. */
const TOPICS_AT_ONCE = 30;

const words = (value: unknown): string => (typeof value === "string" ? value : "");

const topicsPath = (topics: readonly string[]) => `topics/${filterToPath(topics[0] ?? "#")}`;

function ownQuery(topics: readonly string[], parameters: Record<string, string | number | undefined>): string {
  const search = new URLSearchParams(topics.slice(1).map((topic) => ["topic", topic]));
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) search.set(name, String(value));
  return `?${search}`;
}

/** Columns of numbers over time, of these topics, from memory and the archive. */
export async function columns(
  question: Question,
  signal?: AbortSignal,
): Promise<{ topics: string[]; answer: Answer }[]> {
  const found: { topics: string[]; answer: Answer }[] = [];
  const { since, until, isOpen, points } = question;
  // the payload itself has the empty path, which can't be asked for by name
  const field = question.fields.includes("") ? undefined : question.fields.join(",");
  // as the gateway has them: an answer that got too large ends behind one
  const all = [...question.topics].sort();
  for (let start = 0; start < all.length; ) {
    const topics = all.slice(start, start + TOPICS_AT_ONCE);
    const parameters = {
      since,
      until: isOpen ? undefined : until,
      points,
      field,
      limit: topics.length,
      format: "columns",
    };
    const response = await ask(`${topicsPath(topics)}${ownQuery(topics, parameters)}`, "application/json", signal);
    const body = (await response.json()) as Record<string, unknown>;
    const done = body.more === true ? topics.filter((topic) => topic <= words(body.next)) : topics;
    found.push({ topics: done, answer: parseAnswer(body) });
    start += Math.max(1, done.length);
  }
  return found;
}

export interface Page {
  messages: Message[];
  position: string;
  recovered: boolean;
  more: boolean;
}

/** Messages as the gateway has them: the last values, or with `since` the history of some topics or filters. */
export async function messages(
  topics: readonly string[],
  parameters: { since?: string | number; order?: "asc" | "desc"; limit: number },
  signal?: AbortSignal,
): Promise<Page> {
  const response = await ask(`${topicsPath(topics)}${ownQuery(topics, parameters)}`, "application/json", signal);
  const body = (await response.json()) as Record<string, unknown>;
  return {
    messages: Array.isArray(body.messages) ? (body.messages as Message[]) : [],
    position: words(body.position),
    recovered: body.recovered !== false,
    more: body.more === true,
  };
}

/** Reads the stream of devices until it ends or is told to: each event by its name, with its data. */
export async function deviceEvents(
  signal: AbortSignal,
  onEvent: (event: string, data: unknown) => void,
): Promise<void> {
  const response = await ask("devices", "text/event-stream", signal);
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const part = await reader?.read();
    if (!part || part.done) return;
    const blocks = (text + part.value).split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const event = /^event: (.*)$/m.exec(block)?.[1];
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (event !== undefined && data !== undefined) onEvent(event, JSON.parse(data));
    }
  }
}

/** History as a file; resolves when the browser has been handed it, with its size. */
export async function download(filter: string, since: string, form: "csv" | "ndjson"): Promise<number> {
  const accept = form === "csv" ? "text/csv" : "application/x-ndjson";
  const response = await ask(`topics/${filterToPath(filter)}${query({ since })}`, accept);
  const blob = await response.blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${filter.replace(/[^\w-]+/g, "_").replace(/^_+|_+$/g, "") || "messages"}.${form}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  return blob.size;
}

/** What a topic says now, with the tag by which it can be replaced; null where it says nothing. */
export async function keptText(topic: string, signal?: AbortSignal): Promise<{ text: string; tag: string } | null> {
  try {
    const response = await ask(`topics/${filterToPath(topic)}${query({ format: "payload" })}`, "*/*", signal);
    const text = await response.text();
    return text === "" ? null : { text, tag: response.headers.get("ETag") ?? "" };
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

/** Another one has changed meanwhile what was to be replaced. */
export const isConflict = (error: unknown): boolean => error instanceof ApiError && error.status === 412;

/**
 * Has the broker keep a text, in the place of the one with that tag; null: where there is none, undefined: of any.
 *
 * @returns its tag.
 */
export async function keep(topic: string, text: string, tag: string | null | undefined): Promise<string> {
  const headers: Record<string, string> = { "Content-Type": "application/json" };
  if (text === "") headers["Content-Type"] = "text/plain";
  if (tag === null) headers["If-None-Match"] = "*";
  else if (tag !== undefined) headers["If-Match"] = tag;
  const path = `topics/${filterToPath(topic)}${query({ qos: 1, retain: 1, confirm: 1 })}`;
  const response = await send(path, { method: "POST", body: text, headers });
  return response.headers.get("ETag") ?? "";
}

/** A token that reads these filters, for so many seconds at most; and when it ends, in milliseconds since 1970. */
export async function share(
  subscribe: readonly string[],
  seconds: number,
): Promise<{ token: string; expires: number }> {
  const response = await send("tokens", {
    method: "POST",
    body: JSON.stringify({ subscribe, seconds }),
    headers: { "Content-Type": "application/json" },
  });
  return (await response.json()) as { token: string; expires: number };
}

/** The newest payload of a topic, as it came; null where it is larger than `most` bytes, or none has come. */
export async function newestPayload(topic: string, most: number, signal?: AbortSignal): Promise<Uint8Array | null> {
  const aborter = new AbortController();
  signal?.addEventListener("abort", () => aborter.abort());
  try {
    const response = await ask(`topics/${filterToPath(topic)}${query({ format: "payload" })}`, "*/*", aborter.signal);
    if (Number(response.headers.get("Content-Length") ?? Number.POSITIVE_INFINITY) <= most)
      return new Uint8Array(await response.arrayBuffer());
    aborter.abort();
    return null;
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

/** Hands bytes to the browser as a file. */
export function saveBytes(bytes: Uint8Array, type: string, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([new Uint8Array(bytes)], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Publishes a text as it stands; resolves when the broker has taken it. */
export async function publish(topic: string, payload: string, retain: boolean): Promise<void> {
  const path = `topics/${filterToPath(topic)}${query({ qos: 1, retain: retain ? 1 : undefined })}`;
  await send(path, { method: "POST", body: payload, headers: { "Content-Type": "text/plain" } });
}

/** The broker that this visitor may give to boards; null where none is offered, or not to this visitor. */
export async function brokerForSensors(): Promise<Broker | null> {
  try {
    return (await (await ask("flash/broker", "application/json")).json()) as Broker;
  } catch (error) {
    if (error instanceof ApiError && [401, 403, 404].includes(error.status)) return null;
    throw error;
  }
}

/** Leaves a board's key with the gateway; whether it keeps such, and takes them of this visitor. */
export async function keepKey(id: string, key: string): Promise<boolean> {
  try {
    const headers = { "Content-Type": "application/json", Accept: "application/json" };
    await send(`flash/keys/${encodeURIComponent(id)}`, { method: "POST", headers, body: JSON.stringify({ key }) });
    return true;
  } catch (error) {
    if (error instanceof ApiError && [401, 403, 404].includes(error.status)) return false;
    throw error;
  }
}

interface ListedTopic extends Listed {
  /** Whether the broker keeps one of its messages. */
  retained: boolean;
}

const PAGE = 10_000;

/**
 * The topics that a filter matches, by name, a page at a time.
 *
 * @param until the position up to which messages are counted; else all are.
 */
export async function* listTopics(filter: string, signal?: AbortSignal, until?: string): AsyncGenerator<ListedTopic[]> {
  let after: string | undefined;
  do {
    const response = await ask(`topics${query({ filter, limit: PAGE, after, until })}`, "application/json", signal);
    const body = (await response.json()) as Record<string, unknown>;
    yield Array.isArray(body.topics) ? (body.topics as ListedTopic[]) : [];
    after = words(body.next) || undefined;
  } while (after !== undefined);
}

/** One device, with the newest value of each of its fields. */
export async function device(id: string, signal?: AbortSignal): Promise<AnnouncedDevice> {
  const response = await ask(`devices/${encodeURIComponent(id)}`, "application/json", signal);
  return (await response.json()) as AnnouncedDevice;
}

/** How it is with the alerts that this visitor may see. */
export async function alerts(): Promise<Alert[]> {
  return readAlerts(await (await ask("alerts", "application/json")).json());
}

/** One step of the answer to "why do I see nothing?". */
interface ExplainStep {
  name: string;
  /** null: that isn't known, or wasn't asked. */
  ok: boolean | null;
  detail: string;
}

export interface Explanation {
  steps: ExplainStep[];
  /** The name of the first step that fails; null: none does. */
  failed: string | null;
  /** How it fails, or that nothing does, as the gateway says it. */
  answer: string;
  /** Topics or filters that were perhaps meant. */
  near: { topic: string; why: string }[];
}

const records = (value: unknown): Record<string, unknown>[] =>
  Array.isArray(value) ? value.filter((entry) => entry !== null && typeof entry === "object") : [];

export async function explain(filter: string, signal?: AbortSignal): Promise<Explanation> {
  const response = await ask(`explain${query({ topic: filter })}`, "application/json", signal);
  const body = (await response.json()) as Record<string, unknown>;
  return {
    steps: records(body.steps).map((step) => ({
      name: words(step.step),
      ok: typeof step.ok === "boolean" ? step.ok : null,
      detail: words(step.text),
    })),
    failed: words(body.failed) || null,
    answer: words(body.answer),
    near: records(body.near).map((entry) => ({ topic: words(entry.topic), why: words(entry.why) })),
  };
}

export interface Identity {
  name: string;
  anonymous: boolean;
  /** Milliseconds since 1970; null: for ever. */
  expires: number | null;
  /** Topic filters; null when the gateway doesn't say. */
  subscribe: string[] | null;
  publish: string[] | null;
  /** Why something that one might expect was not granted, a sentence each. */
  notes: string[];
  /** Whether this gateway can verify tokens at all. */
  tokens: boolean;
  /** Which node of a cluster answered; empty where there is one gateway. */
  node: string;
  /** The topic above those of saved views; null where none are kept. */
  views: string | null;
  /** For how many seconds at most one may share what one reads; null: not at all. */
  shareSeconds: number | null;
}

const strings = (value: unknown): string[] | null =>
  Array.isArray(value) ? value.filter((entry): entry is string => typeof entry === "string") : null;

/** Who the gateway takes this visitor for; null when it doesn't say. */
export async function whoAmI(): Promise<Identity | null> {
  try {
    const body = (await (await ask("whoami", "application/json")).json()) as Record<string, unknown>;
    return {
      name: words(body.name) || (body.anonymous === true ? t("anonymous") : t("nobody by name")),
      anonymous: body.anonymous === true,
      expires: typeof body.expires === "number" ? body.expires : null,
      subscribe: strings(body.subscribe),
      publish: strings(body.publish),
      notes: strings(body.notes) ?? [],
      tokens: body.tokens !== false,
      node: words(body.node),
      views: words(body.views) || null,
      shareSeconds: typeof body.share_seconds === "number" ? body.share_seconds : null,
    };
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

const RAW_DEADLINE_MS = 4000;

/**
 * The bytes of one message as they were published: read from history by position, as raw frames.
 *
 * @returns `exact` false when history no longer has it; the bytes are then the value written again.
 */
export async function exactBytes(message: {
  topic: string;
  seq: number;
  payload: unknown;
  encoding?: string | undefined;
}): Promise<{ data: Uint8Array; exact: boolean }> {
  const { payload, encoding } = message;
  if (encoding === "base64" && typeof payload === "string") return { data: bytesFromBase64(payload), exact: true };
  const data = epoch.value === null ? null : await rawFrame(message.topic, `${epoch.value}:${message.seq - 1}`);
  if (data) return { data, exact: true };
  // A plain text and a JSON string look the same once they were read; the text is the likelier one.
  const text = typeof payload === "string" ? payload : JSON.stringify(payload);
  return { data: new TextEncoder().encode(text), exact: false };
}

function rawFrame(topic: string, since: string): Promise<Uint8Array | null> {
  return new Promise((resolve) => {
    const address = new URL(socketAddress);
    address.search = query({ format: "raw" });
    const socket = new WebSocket(address);
    // By command: addresses end up in logs, and the token is nobody's business there.
    socket.onopen = () => {
      const signIn = token.value === null ? [] : [{ command: "authenticate", token: token.value }];
      const commands = [...signIn, { command: "subscribe", topics: [topic], since }];
      answers = commands.length;
      for (const command of commands) socket.send(JSON.stringify(command));
    };
    socket.binaryType = "arraybuffer";
    /** Answers to commands that are to come before the first payload. */
    let answers = 0;
    const finish = (bytes: Uint8Array | null) => {
      clearTimeout(timer);
      socket.onmessage = null;
      socket.close();
      resolve(bytes);
    };
    const timer = setTimeout(() => finish(null), RAW_DEADLINE_MS);
    socket.onerror = () => finish(null);
    socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) => {
      if (answers > 0) {
        answers--;
        const answer = JSON.parse(String(event.data)) as { event?: string; recovered?: boolean };
        // Where history has lost it, the next payload would be another message's.
        if (answer.event === "error" || answer.recovered === false) finish(null);
      } else if (typeof event.data !== "string") finish(new Uint8Array(event.data));
      else finish(new TextEncoder().encode(event.data));
    };
  });
}

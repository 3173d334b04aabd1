/**
 * What the gateway says, in the visitor's words: by its codes, close codes and reasons (docs/protocol.md).
 *
 * In English its own text stands, since that names the rule and the value. In another language the meaning of the code
 * comes first and the text follows as it came. A code that this page doesn't know, and text without one, stay as they are.
 */
import { CLOSE_CODES, type CloseCode, type ErrorCode } from "gateway-live/protocol";
import { translated } from "./words.ts";

/** By the code of an error or a problem document. */
export const ERROR_WORDS: Readonly<Record<ErrorCode, string>> = {
  bad_request: "The request can’t be understood",
  bad_command: "The command can’t be understood",
  bad_topic: "A topic or topic filter breaks a rule of MQTT",
  bad_since: "The beginning that was asked for can’t be read",
  bad_shape: "Messages can’t be had in this form",
  bad_payload: "This payload can’t be published",
  unknown_stream: "No stream of this name is configured",
  unauthorized: "A token is needed, or this one isn’t valid",
  forbidden: "No grant covers this topic or filter",
  limit: "A limit is reached",
  upstream_unavailable: "The gateway isn’t connected to the broker now",
  publish_refused: "The broker refused the message",
  stopping: "The gateway stops or restarts",
  internal: "A fault of the gateway; its log says more",
};

/** What in particular, where that says more than the code: the `reason` beside it. */
export const REASON_WORDS: Readonly<Record<string, string>> = {
  no_token: "A token is needed for this",
  no_keys: "This gateway can’t check tokens",
  malformed: "This is no token",
  too_long: "The token is too long",
  bad_algorithm: "The token is signed in a way that isn’t accepted here",
  unknown_key: "The token is signed with a key that isn’t known here",
  bad_signature: "The token’s signature is wrong",
  expired: "The token has expired",
  not_yet_valid: "The token isn’t valid yet",
  revoked: "The token was called back",
  bad_audience: "The token is for another service",
  bad_issuer: "The token was issued by somebody else",
  missing_claim: "The token lacks something",
  bad_claims: "The token says something that it can’t",
  keys_unavailable: "The keys to check tokens with can’t be had now",
  failed_tokens: "Too many wrong tokens came from this address",
  other_subject: "The new token is somebody else’s",
  host: "The gateway isn’t to be reached under this name",
  origin: "Pages of this origin may not use the gateway",
  requests_per_second: "Too many requests came from this address",
  commands_per_second: "Too many commands came from this page",
  publishes_per_second: "Too much was published from here",
  processor: "What was asked for from this address took too much work",
  payload_bytes: "The payload is too large",
  filters: "Too many topic filters at once",
  filter_bytes: "The topic filters are too long",
  answer_bytes: "Too much that was asked for isn’t read yet",
  unfinished_bytes: "Too much that isn’t finished waits here",
  stream_bytes: "Lists of devices that follow changes take too much memory",
  explanations: "Too many explanations are asked for at once",
  no_message: "No message to this topic has come",
  precondition: "Somebody has changed it meanwhile",
};

/** The same of what the client library itself finds. */
const CLIENT_WORDS: Readonly<Record<string, string>> = {
  timeout: "No answer came in time",
  disconnected: "The connection was cut off before an answer came",
  closed: "The connection is closed",
  blocked: "The browser forbids the connection",
};

/** Why the gateway closed a connection. */
export const CLOSE_WORDS: Readonly<Record<CloseCode, string>> = {
  NORMAL: "This page closed the connection",
  PROTOCOL: "This page broke the WebSocket protocol",
  NOT_UTF8: "What this page sent was not UTF-8",
  TOO_LARGE: "A command was larger than the limit",
  INTERNAL: "A fault of the gateway; its log says more",
  RESTART: "The gateway stops or restarts",
  BUSY: "The gateway has as many connections as it may have",
  BAD_REQUEST: "The request can’t be understood",
  UNAUTHORIZED: "A token is needed, or this one isn’t valid",
  FORBIDDEN: "No grant covers this, or pages of this origin may not connect",
  UNKNOWN_STREAM: "No stream of this name is configured",
  TOKEN_EXPIRED: "The token has expired",
  FLOOD: "Far more commands came than are allowed",
  SLOW: "The connection took no data for too long",
  IDLE: "This page answered no ping for too long",
};

/** The steps of a message's way that `/explain` walks. */
export const STEP_WORDS: Readonly<Record<string, string>> = {
  filter: "filter",
  upstream: "upstream",
  cluster: "cluster",
  subscription: "subscription",
  grant: "grant",
  messages: "messages",
  decode: "decode",
  delivery: "delivery",
  archive: "archive",
  device: "device",
  alerts: "alerts",
};

/** What it means that such a step fails. */
export const FAULT_WORDS: Readonly<Record<string, string>> = {
  filter: "This is no valid topic filter",
  upstream: "The gateway isn’t connected to the broker now",
  cluster: "The cluster doesn’t do what it should",
  subscription: "The gateway doesn’t get this from the broker",
  grant: "You may not read this",
  messages: "No message that matches has come yet",
  decode: "The newest message could not be decoded",
  delivery: "Your connection doesn’t get this",
  archive: "The archive doesn’t keep all of this",
  device: "Something is wrong with the device",
};

const EVERY_STEP = "Every step is in order";

const NAMES = new Map<number, string>(
  Object.entries(CLOSE_CODES).map(([name, code]) => [code, CLOSE_WORDS[name as CloseCode]]),
);

/** All that is in the tables above: for another language to have a form of it. */
export const TOLD: readonly string[] = [
  ...[ERROR_WORDS, REASON_WORDS, CLIENT_WORDS, CLOSE_WORDS, STEP_WORDS, FAULT_WORDS].flatMap((table) =>
    Object.values(table),
  ),
  EVERY_STEP,
];

const of = (table: Readonly<Record<string, string>>, name: string): string | undefined =>
  Object.hasOwn(table, name) ? table[name] : undefined;

/** The words of a table for what the gateway has said as `text`; `text` alone where nothing would be gained. */
function worded(meaning: string | undefined, text: string): string {
  if (meaning === undefined) return text;
  const own = translated(meaning);
  if (text === "") return own ?? meaning;
  return own === null ? text : `${own} (${text})`;
}

/** What went wrong, by the code of an error and its reason. */
export function errorWords(code: string, text: string, reason?: string | null): string {
  return worded(of(REASON_WORDS, reason ?? "") ?? of(ERROR_WORDS, code) ?? of(CLIENT_WORDS, code), text);
}

/** Why a connection was closed; "" where nobody said. */
export function closeWords(code: number | null, reason: string | null): string {
  return worded(code === null ? undefined : NAMES.get(code), reason ?? "");
}

/** The name of a step of `/explain`. */
export function stepWords(step: string): string {
  return translated(of(STEP_WORDS, step) ?? step) ?? step;
}

/**
 * The answer of `/explain`: what it means that a step fails, alone, for the text is long and stands on its own.
 *
 * @param failed the step; null: none does.
 */
export function verdictWords(failed: string | null, answer: string): string {
  return translated(failed === null ? EVERY_STEP : (of(FAULT_WORDS, failed) ?? "")) ?? answer;
}

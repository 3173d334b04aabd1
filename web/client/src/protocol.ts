/**
 * The gateway's words (docs/protocol.md), as tables: `gateway/core/protocol.py` has the same ones, and
 * `tests/test_tables.py` reads this file. Types are made of them; what only types need costs a page nothing.
 */

/** Every command, with the members that it may have besides `command` and `id`. */
export const COMMANDS = {
  subscribe: ["topics", "since", "max_hz", "mode", "fields", "deadband", "where", "properties"],
  unsubscribe: ["topics"],
  publish: ["topic", "payload", "encoding", "qos", "retain", "properties"],
  authenticate: ["token"],
  ping: [],
} as const;

/** Members of `subscribe` that shape messages, and parameters of an address by the same names. */
export const PARAMETERS = ["max_hz", "mode", "fields", "deadband", "where", "properties"] as const;

export const MODES = ["latest", "mean", "minmax"] as const;

export const EVENTS = [
  "subscribed",
  "replayed",
  "unsubscribed",
  "published",
  "authenticated",
  "pong",
  "gap",
  "upstream",
  "archive",
  "expiring",
  "error",
] as const;

/** Members of a message. */
export const MESSAGE = [
  "topic",
  "payload",
  "time",
  "seq",
  "encoding",
  "decode",
  "retained",
  "qos",
  "skipped",
  "mode",
  "count",
  "interval",
  "properties",
] as const;

/** MQTT 5 properties that are relayed. */
export const PROPERTIES = [
  "content_type",
  "response_topic",
  "correlation_data",
  "user_properties",
  "message_expiry_interval",
] as const;

/** Why messages are missing. */
export const GAP_REASONS = ["slow", "evicted", "epoch", "limit", "crash"] as const;

export const ERROR_CODES = [
  "bad_request",
  "bad_command",
  "bad_topic",
  "bad_since",
  "bad_shape",
  "bad_payload",
  "unknown_stream",
  "unauthorized",
  "forbidden",
  "limit",
  "upstream_unavailable",
  "publish_refused",
  "stopping",
  "internal",
] as const;

/** Why the gateway closes a connection. */
export const CLOSE_CODES = {
  NORMAL: 1000,
  PROTOCOL: 1002,
  NOT_UTF8: 1007,
  TOO_LARGE: 1009,
  INTERNAL: 1011,
  RESTART: 1012,
  BUSY: 1013,
  BAD_REQUEST: 4000,
  UNAUTHORIZED: 4001,
  FORBIDDEN: 4003,
  UNKNOWN_STREAM: 4004,
  TOKEN_EXPIRED: 4005,
  FLOOD: 4008,
  SLOW: 4100,
  IDLE: 4101,
} as const;

/** The close codes after which to come back. */
export const RECONNECTABLE = ["INTERNAL", "RESTART", "BUSY", "SLOW", "IDLE"] as const;

export type CommandName = keyof typeof COMMANDS;
/** What may be sent, less the `id`. */
export type Command = {
  [Name in CommandName]: { command: Name } & { [Member in (typeof COMMANDS)[Name][number]]?: unknown };
}[CommandName];
export type Mode = (typeof MODES)[number];
export type EventName = (typeof EVENTS)[number];
export type GapReason = (typeof GAP_REASONS)[number];
export type ErrorCode = (typeof ERROR_CODES)[number];
export type CloseCode = keyof typeof CLOSE_CODES;

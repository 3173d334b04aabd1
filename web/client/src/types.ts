import type { GapReason, Mode } from "./protocol.js";

/** MQTT 5 properties that the gateway relays where `properties` was asked for. */
export interface Properties {
  content_type?: string;
  response_topic?: string;
  /** base64 */
  correlation_data?: string;
  user_properties?: [name: string, value: string][];
  /** seconds */
  message_expiry_interval?: number;
}

/** One message. Fields that have nothing to say are left out by the gateway. */
export interface Message<Payload = unknown> {
  topic: string;
  /** The JSON value; the text of what is UTF-8 but not JSON; base64 of anything else, and then `encoding` says so. */
  payload: Payload;
  encoding?: "base64";
  /** A rule of the gateway's is to make JSON of the payload, and can't. */
  decode?: "failed";
  /** Milliseconds since 1970, at the gateway. */
  time: number;
  /** Number in the gateway's log; grows by at least one from message to message of one subscription. */
  seq: number;
  /** The broker keeps it as the topic's retained message. */
  retained?: boolean;
  qos?: 1 | 2;
  /** Messages of this topic left out since the last one, because fewer were asked for (`maxHz`, a hidden tab). */
  skipped?: number;
  /** What an aggregate is: its payload holds the mean, or `min` and `max`, of every number. */
  mode?: Exclude<Mode, "latest">;
  /** Messages in an aggregate. */
  count?: number;
  /** Seconds that an aggregate covers. */
  interval?: number;
  properties?: Properties;
}

/** What the gateway said when it took a subscription. */
export interface Subscribed {
  topics: string[];
  /** `epoch:seq` */
  position: string;
  /** Whether everything since the position that was asked for is there. */
  recovered: boolean;
  /** The node of a cluster that answered. */
  node?: string;
}

/** Messages that will not come. */
export interface Gap {
  /**
   * `evicted`, `epoch` (the gateway was restarted), `crash` (it ended without warning), `slow`, `limit`: from the gateway.
   * `reader`: an async iterator of this page was read too slowly.
   */
  reason: GapReason | "reader";
  /** How many; null when nobody can know. */
  lost: number | null;
  from?: number;
  to?: number;
}

/** The gateway's link to the broker. */
export interface Upstream {
  connected: boolean;
  reason?: string;
  /** When it was lost, milliseconds since 1970; absent while it has not been there since the gateway started. */
  lost_at?: number;
}

/** Whether what arrives is kept in the gateway's archive; told when that changes. */
export interface Archive {
  kept: boolean;
  /** Why not: `full`, `read_only`, `io`, `slow`, `corrupt`, … */
  reason?: string;
}

/**
 * `connecting`; `open`: subscribed; `waiting`: for the next attempt, in `delay` milliseconds; `paused`: the tab is hidden and
 * `hiddenHz` is 0; `closed`: for good, by `close()` or because the gateway said not to come back.
 */
export type State = "connecting" | "open" | "waiting" | "paused" | "closed";

export interface StateChange {
  state: State;
  /** Close code of the connection that ended, where one did. */
  code?: number;
  reason?: string;
  /** Milliseconds until the next attempt. */
  delay?: number;
}

export interface LiveEvents<Payload = unknown> {
  message: Message<Payload>;
  subscribed: Subscribed;
  /** Filters that were taken away; without a reason because the page asked for it. */
  unsubscribed: { topics: string[]; reason?: string };
  /** The broker has a message that this page published. */
  published: { topic: string };
  gap: Gap;
  upstream: Upstream;
  archive: Archive;
  /** The token was taken: whose it is, and when it ends in milliseconds since 1970. */
  authenticated: { subject?: string; expires?: number };
  /** The token ends in so many seconds. Where `token` is a function, it has been called. */
  expiring: { seconds: number };
  /** Answer to `ping`: the gateway's time in milliseconds since 1970, and up to where everything has come. */
  pong: { time: number; position?: string };
  /** What no promise could be rejected with. */
  error: LiveError;
  state: StateChange;
}

/** Why a command failed. `code` is stable: the gateway's, or `timeout`, `disconnected`, `closed`, `token`,
 * `blocked` (the browser forbids the connection), `bad_option`. */
export interface LiveError extends Error {
  code: string;
  reason?: string | undefined;
}

/** What a subscriber wants of its messages. */
export interface Shape {
  /** At most so many updates a second of each topic; the latest wins, unless `mode` says what stands for an interval. */
  maxHz?: number | undefined;
  /** `mean` and `minmax` for numbers, over each interval. */
  mode?: Mode;
  /** Only these members of a JSON payload: paths such as `outdoor.t`, `rx[0].rssi` or `SDS0X1.PM2\.5`. */
  fields?: readonly string[];
  /** Only changes of a number by at least so much, and any change of a state or text. */
  deadband?: number;
  /** Only messages for which this holds, such as `temperature > 30 && humidity < 40`. */
  where?: string;
  /** Relay MQTT 5 properties. */
  properties?: boolean;
}

/** A class of sockets: what is used of that of a browser. */
export type SocketClass = new (
  url: URL,
) => {
  onopen: unknown;
  onmessage: unknown;
  onclose: unknown;
  onerror: unknown;
  send(text: string): void;
  close(): void;
};

/** What `connect` can't work with it refuses at once: it throws a `LiveError` with the code `bad_option`. */
export interface Options extends Shape {
  /** Topic filters to subscribe to. */
  topics?: string | readonly string[];
  /** Where to start: `last` (the newest message of every topic, then live), `now`, a time back such as `10m`, a position. */
  since?: string;
  /** An access token, or what fetches one: called for every connection and before a token ends. */
  token?: string | (() => string | Promise<string>) | undefined;
  /** Makes the connections where no WebSocket is built in, as in Node.js 20: that of the package `ws`. */
  WebSocket?: SocketClass | undefined;
  /** `maxHz` while the tab is hidden: 0.2 unless told. 0 closes and catches up when shown; Infinity changes nothing. */
  hiddenHz?: number;
  /** Seconds (0.001 to 2147483) without a word from the gateway until it is asked whether it is there: 15 unless told. */
  silence?: number;
  /** Seconds (0.001 to 2147483) that an answer may take: 10 unless told. */
  timeout?: number;
  /** Seconds (0.001 to 2147483): the longest delay between two attempts to connect: 30 unless told. */
  maxDelay?: number;
  /** Messages (1 to 10⁹) that an async iterator holds for a slow reader: 10,000 unless told. */
  buffer?: number;
}

export interface SubscribeOptions<Payload = unknown> {
  /** As in `Options`. */
  since?: string | undefined;
  /** Gets the messages of these filters (and `on("message")` does as well). */
  onMessage?: ((message: Message<Payload>) => void) | undefined;
}

export interface Subscription extends Subscribed {
  unsubscribe(): Promise<void>;
}

export interface PublishOptions extends Properties {
  qos?: 0 | 1 | 2;
  retain?: boolean;
}

export interface Live<Payload = unknown> extends AsyncIterable<Message<Payload>> {
  readonly state: State;
  /** Where a new page would go on: the option `since`. Undefined before the first message. */
  readonly position: string | undefined;
  /** Every subscribed filter. */
  readonly topics: string[];
  /** Calls `handler` for each event; what it returns takes the handler away again. */
  on<Type extends keyof LiveEvents>(type: Type, handler: (event: LiveEvents<Payload>[Type]) => void): () => void;
  /** Resolves when the gateway took it; rejects if it refused. Kept across connections. */
  subscribe<P = Payload>(topics: string | readonly string[], options?: SubscribeOptions<P>): Promise<Subscription>;
  /** Ends these filters wherever they were subscribed to. */
  unsubscribe(topics: string | readonly string[]): Promise<void>;
  /**
   * Resolves when the gateway has handed it to the broker. Waits for a connection for `timeout` seconds. Rejects with
   * `disconnected` when the connection ended before the answer: it may or may not have been published.
   */
  publish(topic: string, payload: unknown, options?: PublishOptions): Promise<void>;
  /** Milliseconds to the gateway and back. */
  ping(): Promise<number>;
  /** Asks for another rate from now on; undefined is every message. */
  pace(maxHz?: number): void;
  /** Ends it for good. */
  close(): void;
}

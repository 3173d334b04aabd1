import type { LiveError, Message } from "./types.js";

/** Seen from outside, what a handler takes is in LiveEvents. */
export type Handler = (event: never) => void;

/** The error of a command. */
export const failure = (code: string, message: string, reason?: string): LiveError =>
  Object.assign(new Error(message), { code, reason });

/** Calls a handler; its fault is the page's to see, and nobody else's to suffer. */
export function run(handler: Handler | undefined, event: unknown) {
  try {
    handler?.(event as never);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** What the page listens to: handlers by event, and an async iterator over the messages. */
export function makeEvents<Payload>(buffer = 10_000) {
  const handlers: Record<string, Set<Handler>> = {};
  /** Why no message comes any more: an error, or true where the page wanted it so. */
  let ending: LiveError | true | undefined;

  const emit = (type: string, event: unknown) => {
    for (const handler of handlers[type] ?? []) run(handler, event);
    // biome-ignore lint/suspicious/noConsole: a mistyped filter must not look like silence
    if (type === "error" && !handlers[type]?.size) console.warn(event);
  };

  const on = (type: string, handler: Handler) => {
    handlers[type] ??= new Set();
    handlers[type].add(handler);
    return () => {
      handlers[type]?.delete(handler);
    };
  };

  /** Ends the loops over the messages, or without a reason lets the next ones go on. */
  const finish = (reason?: LiveError | true) => {
    ending = reason;
    emit("finish", reason);
  };

  async function* iterate(): AsyncGenerator<Message<Payload>, void, undefined> {
    const queue: Message<Payload>[] = [];
    let proceed = () => {};
    const offs = [
      on("message", (message: Message<Payload>) => {
        queue.push(message);
        if (queue.length > buffer) {
          const gone = queue.splice(0, queue.length >> 1);
          emit("gap", { reason: "reader", lost: gone.length, from: gone[0]?.seq, to: gone.at(-1)?.seq });
        }
        proceed();
      }),
      on("finish", () => proceed()),
    ];
    try {
      while (true) {
        for (let next = queue.shift(); next; next = queue.shift()) yield next;
        if (ending === true) return;
        if (ending) throw ending;
        await new Promise<void>((resolve) => {
          proceed = resolve;
        });
      }
    } finally {
      for (const off of offs) off();
    }
  }

  return { emit, on, iterate, finish };
}

/** What was published from this tab, and what became of it: a publish that was cut off may have been one all the same. */
import { errorWords } from "./told.ts";
import { t } from "./words.ts";

export interface Sent {
  time: number;
  topic: string;
  payload: string;
  qos: 0 | 1 | 2;
  retain: boolean;
  /** null while on its way. */
  outcome: string | null;
  failed: boolean;
}

/** Errors after which nobody knows whether the broker has the message. */
const OPEN = new Set(["disconnected", "closed", "timeout"]);

/** Why a publish has no answer, and whether it may have been one. */
export function failureWords({
  code,
  message,
  reason,
}: {
  code: string;
  message: string;
  reason?: string | undefined;
}) {
  const words = errorWords(code, message, reason);
  return OPEN.has(code) ? `${words}; ${t("perhaps it was published")}` : words;
}

/** What was kept over a reload: what was on its way then has lost its answer. */
export function sentOf(text: string | null): Sent[] {
  try {
    const held: unknown = JSON.parse(text ?? "[]");
    if (!Array.isArray(held)) return [];
    const lost = failureWords({ code: "disconnected", message: "" });
    return (held as Sent[]).map((each) => (each.outcome === null ? { ...each, outcome: lost, failed: true } : each));
  } catch {
    return [];
  }
}

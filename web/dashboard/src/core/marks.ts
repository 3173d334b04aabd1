/** Marks in charts: what a topic says of moments, such as "door opened" or "firmware 2.1". */
import { oneLine } from "./values.ts";

export interface Mark {
  /** Milliseconds since 1970. */
  time: number;
  text: string;
}

/** Marks that are drawn: of more the newest. */
export const MAX_MARKS = 200;
const MAX_TEXT = 80;

/**
 * The mark that a message is; null where it says nothing.
 *
 * Text is the mark. JSON has it in `text`, `message` or `title`, and its moment in `time`, in milliseconds since 1970 or as
 * ISO 8601; without it the mark is where the message came.
 */
export function markOf(message: { payload: unknown; time: number; encoding?: string | undefined }): Mark | null {
  const { payload, time, encoding } = message;
  if (encoding !== undefined || payload === "" || payload === null) return null;
  if (typeof payload !== "object" || Array.isArray(payload)) return { time, text: oneLine(payload, MAX_TEXT) };
  const { text, message: said, title, time: moment } = payload as Record<string, unknown>;
  const words = [text, said, title].find((each) => typeof each === "string" && each !== "");
  const at = typeof moment === "string" && /^\d{4}-/.test(moment) ? Date.parse(moment) : moment;
  const isMoment = typeof at === "number" && at > 0 && at < 8e15;
  return { time: isMoment ? at : time, text: oneLine(words ?? payload, MAX_TEXT) };
}

/** Marks in order of time, with one more; each message once. */
export function withMark(marks: readonly Mark[], mark: Mark): readonly Mark[] {
  if (marks.some(({ time, text }) => time === mark.time && text === mark.text)) return marks;
  return [...marks, mark].sort((a, b) => a.time - b.time).slice(-MAX_MARKS);
}

/** The marks that a topic puts into charts: heard from the past and live. */
import { useEffect, useState } from "preact/hooks";
import * as api from "../../api.ts";
import { MAX_MARKS, type Mark, markOf, withMark } from "../../core/marks.ts";
import { gatewayNow, openFeed } from "../../session.ts";
import { beginOf } from "./watch.ts";

/** @param from where the window begins, in milliseconds since 1970; null: as `since` says. */
export function useMarks(filter: string, since: string, from: number | null): readonly Mark[] {
  const [marks, setMarks] = useState<readonly Mark[]>([]);
  const begins = Math.min(from ?? Number.POSITIVE_INFINITY, beginOf(since, gatewayNow()) ?? gatewayNow());
  // a window that moves a little asks for nothing new
  const start = Math.floor(begins / 60_000) * 60_000;
  const asked = from === null ? since : String(start);
  useEffect(() => {
    if (filter === "") {
      setMarks([]);
      return undefined;
    }
    const aborter = new AbortController();
    const note = (message: { payload: unknown; time: number; encoding?: string | undefined }) => {
      const mark = markOf(message);
      if (mark) setMarks((known) => withMark(known, mark));
    };
    api.messages([filter], { since: start, order: "desc", limit: MAX_MARKS }, aborter.signal).then(
      ({ messages }) => messages.reverse().forEach(note),
      // a chart without its marks is a chart all the same
      () => undefined,
    );
    const feed = openFeed({ topics: filter, since: "now", onMessage: note, isCourtesy: true });
    return () => {
      aborter.abort();
      feed.close();
    };
  }, [filter, asked]);
  return marks;
}

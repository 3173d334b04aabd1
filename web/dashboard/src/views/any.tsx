/** What is on a broker without sensors: the topics that spoke last, with their numbers drawn. */
import { useEffect, useRef } from "preact/hooks";
import * as api from "../api.ts";
import { trendWindow } from "../core/devices.ts";
import { formatCount } from "../core/format.ts";
import { Series } from "../core/series.ts";
import { eachNumber, fieldLabel, firstNumber, summary } from "../core/values.ts";
import { readable } from "../identity.ts";
import { Age, Sparkline } from "../parts/bits.tsx";
import { useTicker } from "../parts/ticker.ts";
import { to } from "../router.ts";
import { openFeed, viewNow } from "../session.ts";

const SHOWN = 30;
const KEPT = 2000;

interface Known {
  topic: string;
  payload: unknown;
  encoding: string | undefined;
  time: number;
  /** Its past was asked for. */
  asked: boolean;
  series: Series | null;
}

export function AnyTopics() {
  useTicker(1);
  const known = useRef(new Map<string, Known>());
  const more = useRef(0);
  useEffect(() => {
    const feed = openFeed({
      topics: readable(),
      since: "last",
      maxHz: 1,
      onMessage: (message) => {
        let entry = known.current.get(message.topic);
        if (!entry) {
          if (known.current.size >= KEPT) {
            more.current++;
            return;
          }
          entry = { topic: message.topic, payload: null, encoding: undefined, time: 0, asked: false, series: null };
          known.current.set(message.topic, entry);
        }
        entry.payload = message.payload;
        entry.encoding = message.encoding;
        entry.time = message.time;
        if (message.encoding !== undefined) return;
        if (!entry.series) {
          const field = firstNumber(message.payload);
          if (field === null) return;
          entry.series = new Series(message.topic, field, 400);
        }
        const { series } = entry;
        eachNumber(message.payload, (field, value) => {
          if (field === series.field) series.push(message.time, value);
        });
      },
    });
    return () => feed.close();
  }, []);
  const busy = useRef(false);
  const now = viewNow();
  const all = [...known.current.values()].sort((a, b) => b.time - a.time);
  const shown = all.slice(0, SHOWN).sort((a, b) => (a.topic < b.topic ? -1 : 1));
  const next = shown.find((entry) => entry.series && !entry.asked);
  useEffect(() => {
    if (!next || busy.current) return;
    busy.current = true;
    next.asked = true;
    fill(next).finally(() => {
      busy.current = false;
    });
  });
  const span = trendWindow(
    shown.map((entry) => entry.series),
    now,
  );
  if (all.length === 0) return null;
  return (
    <section class="any">
      <h2>Heard last</h2>
      <ul>
        {shown.map((entry) => (
          <li key={entry.topic}>
            <a href={to.live(entry.topic)}>{entry.topic}</a>
            <code class="value">{summary(entry.payload, entry.encoding, 90)}</code>
            <Sparkline
              series={entry.series}
              from={now - span}
              to={now}
              width={112}
              height={24}
              label={entry.series ? `Trend of ${fieldLabel(entry.series.field)}` : "no numbers"}
            />
            <Age time={entry.time} now={now} />
          </li>
        ))}
      </ul>
      {all.length > SHOWN && (
        <p class="soft">
          {formatCount(all.length - SHOWN)} more under <a href={to.topics()}>Topics</a>.
        </p>
      )}
    </section>
  );
}

/** Puts the past in front of what came since the page opened. */
async function fill(entry: Known): Promise<void> {
  const live = entry.series;
  if (!live) return;
  try {
    const points = await api.trend(entry.topic, live.field, "15m");
    const from = live.length > 0 ? live.time(0) : Number.POSITIVE_INFINITY;
    const series = new Series(entry.topic, live.field, 1000);
    for (const point of points) if (point.time < from) series.push(point.time, point.value);
    for (let index = 0; index < live.length; index++) series.push(live.time(index), live.value(index));
    entry.series = series;
  } catch {
    // Then the line begins where the page opened.
  }
}

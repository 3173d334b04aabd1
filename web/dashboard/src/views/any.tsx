/** What is on a broker without sensors: the topics that spoke last, with their numbers drawn. */
import { useEffect, useRef } from "preact/hooks";
import { formatCount } from "../core/format.ts";
import { Series } from "../core/series.ts";
import { eachNumber, fieldLabel, oneLine } from "../core/values.ts";
import { Age, Sparkline } from "../parts/bits.tsx";
import { useTicker } from "../parts/ticker.ts";
import { to } from "../router.ts";
import { gatewayNow, openFeed } from "../session.ts";

const SHOWN = 30;
const KEPT = 2000;

interface Known {
  topic: string;
  payload: unknown;
  time: number;
  series: Series | null;
}

export function AnyTopics() {
  useTicker(1);
  const known = useRef(new Map<string, Known>());
  const more = useRef(0);
  useEffect(() => {
    const feed = openFeed({
      topics: "#",
      since: "last",
      maxHz: 1,
      onMessage: (message) => {
        let entry = known.current.get(message.topic);
        if (!entry) {
          if (known.current.size >= KEPT) {
            more.current++;
            return;
          }
          entry = { topic: message.topic, payload: null, time: 0, series: null };
          known.current.set(message.topic, entry);
        }
        entry.payload = message.payload;
        entry.time = message.time;
        const held = entry;
        let done = false;
        eachNumber(message.payload, (field, value) => {
          if (done) return;
          held.series ??= new Series(message.topic, field, 400);
          if (held.series.field !== field) return;
          held.series.push(message.time, value);
          done = true;
        });
      },
    });
    return () => feed.close();
  }, []);
  const now = gatewayNow();
  const all = [...known.current.values()].sort((a, b) => b.time - a.time);
  if (all.length === 0) return null;
  const shown = all.slice(0, SHOWN).sort((a, b) => (a.topic < b.topic ? -1 : 1));
  return (
    <section class="any">
      <h2>Heard last</h2>
      <ul>
        {shown.map((entry) => (
          <li key={entry.topic}>
            <a href={to.live(entry.topic)}>{entry.topic}</a>
            <code class="value">{oneLine(entry.payload, 90)}</code>
            <Sparkline
              series={entry.series}
              from={now - 5 * 60_000}
              to={now}
              width={112}
              height={24}
              label={entry.series ? `Trend of ${fieldLabel(entry.series.field)} since this page opened` : "no numbers"}
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

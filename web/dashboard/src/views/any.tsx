/** What is on a broker without sensors: the topics that spoke last, with their numbers drawn. */

import { useEffect, useRef } from "preact/hooks";
import { formatCount } from "../core/format.ts";
import { hasPicture } from "../core/images.ts";
import { oneQuestion, Trend, trendKey, trendWindow } from "../core/trends.ts";
import { eachNumber, fieldLabel, firstNumber, isPartOfPosition, summary } from "../core/values.ts";
import { t } from "../core/words.ts";
import { readable } from "../identity.ts";
import { Age, Sparkline } from "../parts/bits.tsx";
import { Cut } from "../parts/cut.tsx";
import { Tile } from "../parts/picture.tsx";
import { useTicker } from "../parts/ticker.ts";
import { to } from "../router.ts";
import { gatewayNow, openFeed, viewNow } from "../session.ts";
import { loadTrends } from "../trends.ts";

const SHOWN = 30;
const KEPT = 2000;

interface Known {
  topic: string;
  payload: unknown;
  encoding: string | undefined;
  time: number;
  /** Its past was asked for. */
  asked: boolean;
  trend: Trend | null;
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
          entry = { topic: message.topic, payload: null, encoding: undefined, time: 0, asked: false, trend: null };
          known.current.set(message.topic, entry);
        }
        entry.payload = message.payload;
        entry.encoding = message.encoding;
        entry.time = message.time;
        if (message.encoding !== undefined) return;
        if (!entry.trend) {
          const field = firstNumber(message.payload);
          if (field === null || isPartOfPosition(field)) return;
          entry.trend = new Trend(message.topic, field);
        }
        const { trend } = entry;
        eachNumber(message.payload, (field, value) => {
          if (field === trend.field) trend.note(message.time, value);
        });
      },
    });
    return () => feed.close();
  }, []);
  const busy = useRef(false);
  const now = viewNow();
  const all = [...known.current.values()].sort((a, b) => b.time - a.time);
  const shown = all.slice(0, SHOWN).sort((a, b) => (a.topic < b.topic ? -1 : 1));
  const isWanted = shown.some((entry) => entry.trend && !entry.asked);
  useEffect(() => {
    if (!isWanted || busy.current) return;
    busy.current = true;
    fill(shown.filter((entry) => entry.trend && !entry.asked)).finally(() => {
      busy.current = false;
    });
  });
  const span = trendWindow(
    shown.map((entry) => entry.trend),
    now,
  );
  if (all.length === 0) return null;
  return (
    <section class="any">
      <h2>{t("Heard last")}</h2>
      <ul>
        {shown.map((entry) => (
          <li key={entry.topic}>
            <a href={to.live(entry.topic)}>
              <Cut text={entry.topic} />
            </a>
            <code class="value" title={summary(entry.payload, entry.encoding, 600)}>
              {hasPicture(entry.payload, entry.encoding) && (
                <Tile topic={entry.topic} label={t("Newest picture of {topic}", { topic: entry.topic })} />
              )}
              {summary(entry.payload, entry.encoding, 90)}
            </code>
            <Sparkline
              series={entry.trend?.series ?? null}
              from={now - span}
              to={now}
              width={112}
              height={24}
              label={entry.trend ? t("Trend of {field}", { field: fieldLabel(entry.trend.field) }) : t("no numbers")}
            />
            <Age time={entry.time} now={now} inColumn />
          </li>
        ))}
      </ul>
      {all.length > SHOWN && (
        <p class="soft">
          {formatCount(all.length - SHOWN)} {t("more under")} <a href={to.topics()}>{t("Topics")}</a>.
        </p>
      )}
    </section>
  );
}

/** Puts the past in front of what came since the page opened. */
async function fill(entries: readonly Known[]): Promise<void> {
  const all = entries.map((entry) => ({ entry, topic: entry.topic, field: entry.trend?.field ?? "" }));
  const asked = oneQuestion(all);
  for (const { entry } of asked) entry.asked = true;
  const askedAt = gatewayNow();
  try {
    const found = await loadTrends(asked);
    for (const each of asked) {
      const columns = found.get(trendKey(each));
      const live = each.entry.trend?.series;
      if (!columns || !live) continue;
      const trend = Trend.of(each.topic, each.field, columns);
      for (let index = live.indexAt(askedAt); index < live.length; index++)
        trend.note(live.time(index), live.value(index));
      each.entry.trend = trend;
    }
  } catch {
    // Then the lines begin where the page opened.
  }
}

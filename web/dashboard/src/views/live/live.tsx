/** A topic or filter, live: what it says, how it went, and how to take it elsewhere. */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { distinctLevels, filterProblem, isWildcard } from "../../core/filter.ts";
import { formatCount, formatMoment, parseSpan } from "../../core/format.ts";
import {
  LIMITS,
  LiveStore,
  offeredFields,
  oldestTime,
  parseThreshold,
  type StoredMessage,
  withNewcomers,
} from "../../core/store.ts";
import { defaultFields, type Field } from "../../core/values.ts";
import { cutAt, liveWindow, parseWindow, reachOf, scaled, type TimeWindow } from "../../core/window.ts";
import { Empty } from "../../parts/bits.tsx";
import { useTicker } from "../../parts/ticker.ts";
import { route, setParams, to } from "../../router.ts";
import { gatewayNow, openFeed, viewNow } from "../../session.ts";
import { PALETTE } from "./chart.ts";
import { Charts, type Moves } from "./charts.tsx";
import { Downloads } from "./downloads.tsx";
import { Elsewhere } from "./elsewhere.tsx";
import { Embed } from "./embed.tsx";
import { FieldChips } from "./fields.tsx";
import { FilterHead } from "./filter.tsx";
import { Inspector } from "./inspector.tsx";
import { Legend } from "./legend.tsx";
import { Losses } from "./losses.tsx";
import { Messages } from "./messages.tsx";
import { Nothing } from "./nothing.tsx";
import type { PanelLine } from "./panel.tsx";
import { Thresholds } from "./thresholds.tsx";
import { DEFAULT_RANGE, Tools } from "./tools.tsx";
import { useWatch } from "./watch.ts";

/** Lines that are on before anyone chose: as many as there are colours that can be told apart. */
const LINES = PALETTE;
/** While history comes in all topics are newcomers, in the order of time; people read in that of names. */
const EARLY_MS = 2000;

/** A picture that stands still, and what it shows: messages that come meanwhile can push nothing out of it. */
interface Paused {
  at: number;
  /** Messages that had come by then. */
  n: number;
  store: LiveStore;
}

export function LiveView({ filter, embed }: { filter: string; embed: boolean }) {
  const problem = filterProblem(filter);
  if (problem !== null) {
    return (
      <>
        <FilterHead filter={filter} />
        <Empty title="This isn’t a topic filter">
          <p>{problem}</p>
          <p>
            For example <a href={to.live("sensors/+/state")}>sensors/+/state</a>, the states of all sensors, or{" "}
            <a href={to.live("home/#")}>home/#</a>, everything below home.
          </p>
        </Empty>
        <Idle />
      </>
    );
  }
  const since = route.value.params.get("since") ?? DEFAULT_RANGE;
  // A filter or a time of its own is a view of its own: nothing of the last one may linger.
  return <Watching key={`${filter}\n${since}`} filter={filter} since={since} embed={embed} />;
}

/** A view that listens to nothing still says whether it could. */
function Idle() {
  useLayoutEffect(() => {
    const feed = openFeed({ topics: [], since: "now", onMessage: () => undefined });
    return () => feed.close();
  }, []);
  return null;
}

function Watching({ filter, since, embed }: { filter: string; since: string; embed: boolean }) {
  const params = route.value.params;
  const span = parseSpan(since) ?? 15 * 60_000;
  useTicker(span <= 5 * 60_000 ? 4 : 2);
  const [paused, setPaused] = useState<Paused | null>(null);
  const [hover, setHover] = useState<number | null>(null);
  const [picked, setPicked] = useState<StoredMessage | null>(null);
  const zoomed = parseWindow(params);
  // From when on messages are here by `since`.
  const begins = useMemo(() => (parseSpan(since) === null ? Date.parse(since) : gatewayNow() - span), []);
  const wantedReach = reachOf(zoomed, begins);
  const [reach, setReach] = useState(wantedReach);
  const isShort = zoomed !== null && wantedReach !== null && (reach === null || zoomed.from < reach);
  useEffect(() => {
    if (isShort) setReach(wantedReach);
  }, [isShort]);
  const heard = useWatch(filter, since, reach, (store) => {
    setPicked((held) => held && store.find(held.seq));
    setPaused((held) => {
      if (!held) return null;
      const copy = store.snapshot(held.at);
      return { ...held, store: copy, n: copy.received };
    });
  });

  const store = paused?.store ?? heard.store;
  const now = paused?.at ?? viewNow();
  const oldest = oldestTime(store);
  const window: TimeWindow = zoomed ?? liveWindow(span, now, oldest);

  const chosenFields = params.getAll("field");
  const allFields = offeredFields(store);
  const fields = chosenFields.length > 0 ? chosenFields : defaultFields(allFields, store.topics.size);
  const thresholds = params.getAll("limit").flatMap((text) => parseThreshold(text) ?? []);
  const hidden = new Set(params.getAll("hide"));
  const shownTopics = params.getAll("show");

  const topics = useSortedTopics(store, fields);
  const labels = heard.units.name(topics, distinctLevels(topics));
  const on = topics.filter((topic, index) =>
    shownTopics.length > 0 ? shownTopics.includes(topic) : index < LINES && !hidden.has(topic),
  );
  const lines = (field: Field): PanelLine[] =>
    on.flatMap((topic) => {
      const series = store.series.get(LiveStore.key(topic, field));
      const index = topics.indexOf(topic);
      return series ? [{ series, label: labels[index] ?? topic, colour: index }] : [];
    });

  const moves: Moves = {
    zoom: (next) => {
      const cut = cutAt(now, next);
      if (cut) setParams({ from: String(cut.from), to: String(cut.to) });
    },
    // As the address has it: keys may come quicker than they are drawn.
    scale: (factor, shift) => moves.zoom(scaled(parseWindow(route.value.params) ?? window, factor, shift)),
    reset: () => setParams({ from: null, to: null }),
    togglePause: () =>
      setPaused(paused ? null : { at: viewNow(), n: heard.store.received, store: heard.store.snapshot() }),
  };

  const charts = (
    <Charts
      store={store}
      units={heard.units}
      fields={fields}
      lines={lines}
      thresholds={thresholds}
      window={window}
      beat={paused ? `paused ${zoomed !== null} ${heard.reach}` : `${store.version} ${Math.floor(now / 250)}`}
      hover={hover}
      onHover={setHover}
      moves={moves}
      fills={embed}
    />
  );
  const legend = topics.length > 1 && (
    <Legend
      topics={topics}
      labels={labels}
      on={new Set(on)}
      store={store}
      field={fields[0] ?? ""}
      unit={heard.units.of(fields[0] ?? "")}
      at={hover ?? window.to}
    />
  );
  if (embed) {
    const drawn = fields.length > 0 ? charts : null;
    return <Embed filter={filter} charts={drawn} legend={legend} subscribed={heard.subscribed} />;
  }

  const name = isWildcard(filter) ? null : heard.units.nameOf(filter);
  const area = (
    <section class="chart-area" aria-label="Chart">
      {allFields.length > 1 && (
        <div class="chart-tools">
          <FieldChips all={allFields} chosen={fields} />
        </div>
      )}
      {charts}
      {legend}
      {zoomed && (oldest === null || oldest > zoomed.from) && (
        <p class="soft note" role="status">
          {isShort || heard.reach !== reach
            ? "Fetching what is older…"
            : oldest === null
              ? "Nothing of this time is kept."
              : `Nothing from before ${formatMoment(oldest)} is kept.`}
        </p>
      )}
      {store.unplotted > 0 && (
        <p class="warn note" role="status">
          More than {formatCount(LIMITS.series)} lines: the others are listed below, but not drawn. A narrower filter
          draws them.
        </p>
      )}
      {!isWildcard(filter) && store.numberless > 0 && (
        <p class="soft note">
          {formatCount(store.numberless)} of {formatCount(store.received)} messages here hold no number.
        </p>
      )}
      <Thresholds thresholds={thresholds} fields={fields} />
    </section>
  );
  return (
    <>
      <FilterHead filter={filter} />
      {name !== null && <p class="device-name">{name}</p>}
      <Tools
        since={since}
        zoomed={zoomed !== null}
        pausedAt={paused?.n ?? null}
        heard={heard}
        store={store}
        lines={topics.length}
        moves={moves}
      />
      <Losses store={store} recovered={heard.recovered} version={store.version} />
      {store.received === 0 ? (
        <Nothing filter={filter} refusal={heard.refusal} subscribed={heard.subscribed} />
      ) : (
        <>
          {allFields.length > 0 ? (
            area
          ) : (
            <p class="soft no-numbers">No numbers in these payloads, so there is nothing to draw.</p>
          )}
          <div class="below">
            <Messages
              store={store}
              version={store.version}
              downloads={<Downloads filter={filter} since={since} />}
              wild={isWildcard(filter)}
              picked={picked}
              onPick={setPicked}
            />
            <Inspector store={store} version={store.version} picked={picked} onFollow={() => setPicked(null)} />
          </div>
        </>
      )}
      <Elsewhere filter={filter} since={since} />
    </>
  );
}

/** Topics that have a series of these fields, in a stable order: a newcomer mustn't recolour the others. */
function useSortedTopics(store: LiveStore, fields: readonly Field[]): string[] {
  const known = useRef<readonly string[]>([]);
  const since = useRef(performance.now());
  const has = (topic: string) => fields.some((field) => store.series.has(LiveStore.key(topic, field)));
  const isEarly = known.current.length === 0 || performance.now() - since.current < EARLY_MS;
  known.current = withNewcomers(known.current, [...store.topics.keys()].filter(has), isEarly);
  return known.current.filter(has);
}

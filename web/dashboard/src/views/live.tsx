/** A topic or filter, live: what it says, how it went, and how to take it elsewhere. */
import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "../api.ts";
import { copyForms } from "../core/copyas.ts";
import { distinctLevels, filterProblem, isWildcard, matches } from "../core/filter.ts";
import {
  formatBytes,
  formatCount,
  formatDateTime,
  formatMoment,
  formatNumber,
  formatRate,
  formatSpan,
  formatSteady,
  isToday,
  parseSpan,
} from "../core/format.ts";
import { Rate } from "../core/rhythm.ts";
import {
  LIMITS,
  LiveStore,
  offeredFields,
  oldestTime,
  parseThreshold,
  type Row,
  type StoredMessage,
  type Threshold,
  thresholdText,
} from "../core/store.ts";
import { compareNames } from "../core/tree.ts";
import { type Field, fieldLabel, fieldRank, oneLine, summary } from "../core/values.ts";
import { asOf, CopyButton, Empty, Explain, GAP_WORDS, refusalTitle } from "../parts/bits.tsx";
import { PALETTE } from "../parts/chart.ts";
import { CloseIcon, DownloadIcon, PauseIcon, PlayIcon } from "../parts/icons.tsx";
import { Panel, type PanelLine } from "../parts/panel.tsx";
import { Hex, PayloadView, Raw } from "../parts/payload.tsx";
import { useTicker } from "../parts/ticker.ts";
import { Rows, rowStyle, useVisibleRows, useWide } from "../parts/virtual.tsx";
import { base, navigate, route, setParams, to } from "../router.ts";
import { gatewayNow, isLive, link, openFeed, refusal as refused, token, viewNow } from "../session.ts";
import { theme } from "../theme.ts";
import { metaFilter, Units } from "../units.ts";

const RANGES = ["1m", "5m", "15m", "1h", "6h", "24h"];
const DEFAULT_RANGE = "15m";
/** Lines that are on before anyone chose: as many as there are colours that can be told apart. */
const LINES = PALETTE;
const PANELS = 3;
/** Milliseconds that a chart shows at least. */
const MIN_SPAN = 30_000;

/** How long what is older may come in before it takes the place of what is shown, in milliseconds. */
const REPLAY_MS = 300;

/** A picture that stands still, and what it shows: messages that come meanwhile can push nothing out of it. */
interface Paused {
  at: number;
  /** Messages that had come by then. */
  n: number;
  store: LiveStore;
}

interface State {
  /** How far back `store` reaches; null: as far as was asked for in words. */
  reach: number | null;
  store: LiveStore;
  units: Units;
  rate: Rate;
  subscribed: boolean;
  recovered: boolean | undefined;
  /** What the gateway said against it. */
  refusal: string | null;
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
  const state = useMemo<State>(
    () => ({
      reach: null,
      store: new LiveStore(),
      units: new Units(),
      rate: new Rate(10),
      subscribed: false,
      recovered: undefined,
      refusal: null,
    }),
    [],
  );
  const params = route.value.params;
  const span = parseSpan(since) ?? 15 * 60_000;
  useTicker(span <= 5 * 60_000 ? 4 : 2);
  const [paused, setPaused] = useState<Paused | null>(null);
  const [hover, setHover] = useState<number | null>(null);
  const [picked, setPicked] = useState<StoredMessage | null>(null);
  const zoomFrom = Number(params.get("from"));
  const zoomTo = Number(params.get("to"));
  const zoomed = zoomFrom > 0 && zoomTo > zoomFrom;
  // From when on messages are here by `since`; where a window reaches further, that is asked for and two windows more.
  const begins = useMemo(() => (parseSpan(since) === null ? Date.parse(since) : gatewayNow() - span), []);
  const wantedReach = zoomed && zoomFrom < begins ? Math.max(0, zoomFrom - 2 * (zoomTo - zoomFrom)) : null;
  const [reach, setReach] = useState(wantedReach);
  const isShort = wantedReach !== null && (reach === null || zoomFrom < reach);
  useEffect(() => {
    if (isShort) setReach(wantedReach);
  }, [isShort]);

  useLayoutEffect(() => {
    // What is shown stays until what reaches further back is here.
    const store = new LiveStore();
    let swapping = 0;
    const swap = () => {
      if (state.store === store && state.reach === reach) return;
      state.store = store;
      state.reach = reach;
      setPicked((held) => held && store.find(held.seq));
      setPaused((held) => {
        if (!held) return null;
        const copy = store.snapshot(held.at);
        return { ...held, store: copy, n: copy.received };
      });
    };
    if (state.store.received === 0) state.store = store;
    const feed = openFeed({
      topics: filter,
      since: reach === null ? since : new Date(reach).toISOString(),
      ...(isWildcard(filter) ? {} : { hiddenHz: Number.POSITIVE_INFINITY }),
      onMessage: (message, replayed) => {
        state.units.note(message.topic, message.payload);
        if (!matches(filter, message.topic)) return;
        store.note(message, replayed);
        if (!replayed) state.rate.note(message.time, 1 + (message.skipped ?? 0));
      },
      onError: (_code, message) => {
        state.refusal = message;
      },
      onGap: (gap) => store.noteGap(gap.reason, gap.lost ?? null, gatewayNow()),
      onSubscribed: (_position, recovered) => {
        clearTimeout(swapping);
        swapping = window.setTimeout(swap, REPLAY_MS);
        state.subscribed = true;
        state.refusal = null;
        state.recovered = recovered;
      },
    });
    const meta = metaFilter(filter);
    if (meta !== null) {
      feed.live
        .subscribe(meta, { since: "last" })
        // Units are a courtesy: who may not read meta sees numbers without them.
        .catch(() => undefined);
    }
    return () => {
      clearTimeout(swapping);
      feed.close();
    };
  }, [reach]);

  const store = paused?.store ?? state.store;
  const now = paused?.at ?? viewNow();
  // History that is younger than what was asked for fills the chart all the same: an empty half says nothing.
  const oldest = oldestTime(store);
  const shown = oldest === null ? span : Math.min(span, Math.max(MIN_SPAN, (now - oldest) * 1.02));
  const from = zoomed ? zoomFrom : now - shown;
  const until = zoomed ? zoomTo : now;

  const chosenFields = params.getAll("field");
  const allFields = offeredFields(store);
  const fields = chosenFields.length > 0 ? chosenFields : defaultFields(allFields, store);
  const thresholds = params.getAll("limit").flatMap((text) => parseThreshold(text) ?? []);
  const hidden = new Set(params.getAll("hide"));
  const shownTopics = params.getAll("show");

  const topics = useSortedTopics(store, fields);
  const labels = state.units.name(topics, distinctLevels(topics));
  const on = topics.filter((topic, index) =>
    shownTopics.length > 0 ? shownTopics.includes(topic) : index < LINES && !hidden.has(topic),
  );
  const lines = (field: Field): PanelLine[] =>
    on.flatMap((topic) => {
      const series = store.series.get(LiveStore.key(topic, field));
      const index = topics.indexOf(topic);
      return series ? [{ series, label: labels[index] ?? topic, colour: index }] : [];
    });

  // There is nothing to see in the future.
  const zoom = (a: number, b: number) => {
    const end = Math.min(b, now);
    if (end - a >= 100) setParams({ from: String(Math.round(a)), to: String(Math.round(end)) });
  };
  const reset = () => setParams({ from: null, to: null });
  const scale = (factor: number, shift = 0) => {
    // As the address has it: keys may come quicker than they are drawn.
    const held = [Number(route.value.params.get("from")), Number(route.value.params.get("to"))];
    const [a = from, b = until] = route.value.params.has("from") ? held : [from, until];
    const width = (b - a) * factor;
    const middle = (a + b) / 2 + shift * (b - a);
    zoom(middle - width / 2, middle + width / 2);
  };
  const togglePause = () =>
    setPaused(paused ? null : { at: viewNow(), n: state.store.received, store: state.store.snapshot() });

  const onChartKey = (event: KeyboardEvent) => {
    if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") scale(0.5);
    else if (event.key === "-") scale(2);
    else if (event.key === "ArrowLeft") scale(1, -0.25);
    else if (event.key === "ArrowRight") scale(1, 0.25);
    else if (event.key === "0" || event.key === "Escape") reset();
    else if (event.key === " ") togglePause();
    else return;
    event.preventDefault();
  };

  const beat = paused ? `paused ${zoomed} ${state.reach}` : `${store.version} ${Math.floor(now / 250)}`;
  const [room, chartsBox] = useRoom(embed);
  const panelHeight = embed
    ? Math.max(60, Math.floor((room - AXIS) / Math.max(1, fields.length)) - CAPTION)
    : heightOf(fields.length);
  const charts = (
    <div
      ref={chartsBox}
      class="charts"
      role="group"
      tabIndex={0}
      aria-label="Charts. Plus and minus zoom, arrows move, 0 goes back to live, space pauses."
      onKeyDown={onChartKey}
    >
      {fields.map((field, index) => (
        <Panel
          key={field}
          field={field}
          unit={state.units.of(field)}
          lines={lines(field)}
          from={from}
          to={until}
          gaps={store.gaps}
          thresholds={thresholds.filter((threshold) => threshold.field === field)}
          height={panelHeight + (index === fields.length - 1 ? AXIS : 0)}
          withTimes={index === fields.length - 1}
          beat={beat}
          theme={theme.value}
          hover={hover}
          titled={fields.length > 1 || field !== ""}
          events={{ onZoom: zoom, onHover: setHover, onReset: reset }}
        />
      ))}
    </div>
  );
  const legend = topics.length > 1 && (
    <Legend
      topics={topics}
      labels={labels}
      on={new Set(on)}
      store={store}
      field={fields[0] ?? ""}
      unit={state.units.of(fields[0] ?? "")}
      at={hover ?? until}
    />
  );

  if (embed) {
    const problem = embedProblem();
    return (
      <main class="embed">
        <h1>
          <a class="embed-title" href={to.live(filter)} target="_blank" rel="noopener">
            {filter}
          </a>
        </h1>
        {problem !== "" && (
          <p class="embed-problem" role="status">
            {problem}
          </p>
        )}
        {fields.length > 0 ? charts : problem === "" && <p class="late soft">{emptyWords(state)}</p>}
        {legend}
      </main>
    );
  }

  const empty = store.received === 0;
  const name = isWildcard(filter) ? null : state.units.nameOf(filter);
  return (
    <>
      <FilterHead filter={filter} />
      {name !== null && <p class="device-name">{name}</p>}
      <div class="live-tools">
        <fieldset class="segments">
          <legend class="sr">How far back</legend>
          {(RANGES.includes(since) ? RANGES : [...RANGES, since]).map((range) => (
            <button
              key={range}
              type="button"
              aria-pressed={since === range}
              onClick={() => setParams({ since: range === DEFAULT_RANGE ? null : range, from: null, to: null })}
            >
              {range}
            </button>
          ))}
        </fieldset>
        <span class="segments zoom">
          <button type="button" aria-label="Zoom out" onClick={() => scale(2)}>
            −
          </button>
          <button type="button" aria-label="Zoom in" onClick={() => scale(0.5)}>
            +
          </button>
          {zoomed && (
            <button type="button" aria-pressed="true" onClick={reset}>
              Back to live
            </button>
          )}
        </span>
        <button
          type="button"
          class={`pause${paused ? " on" : ""}`}
          aria-pressed={paused !== null}
          onClick={togglePause}
        >
          {paused ? <PlayIcon /> : <PauseIcon />}
          <span class="pause-word">{paused ? "Resume" : "Pause"}</span>
        </button>
        <span class="figures num" aria-live="off">
          {paused ? (
            <b>{formatCount(state.store.received - paused.n)} came meanwhile</b>
          ) : (
            <>
              <b class="rate">{isLive.value ? formatRate(state.rate.read(gatewayNow())) : "–"}</b>{" "}
              {formatCount(store.received)} here
              {topics.length > 1 && `, ${formatCount(store.topics.size)}${store.uncounted > 0 ? "+" : ""} topics`}
            </>
          )}
        </span>
      </div>
      <Losses store={store} recovered={state.recovered} version={store.version} />
      {empty ? (
        <Nothing filter={filter} refusal={state.refusal} subscribed={state.subscribed} />
      ) : (
        <>
          {allFields.length > 0 ? (
            <section class="chart-area" aria-label="Chart">
              {allFields.length > 1 && (
                <div class="chart-tools">
                  <FieldChips all={allFields} chosen={fields} />
                </div>
              )}
              {charts}
              {legend}
              {zoomed && (oldest === null || oldest > from) && (
                <p class="soft note" role="status">
                  {isShort || state.reach !== reach
                    ? "Fetching what is older…"
                    : oldest === null
                      ? "Nothing of this time is kept."
                      : `Nothing from before ${formatMoment(oldest)} is kept.`}
                </p>
              )}
              {store.unplotted > 0 && (
                <p class="warn note" role="status">
                  More than {formatCount(LIMITS.series)} lines: the others are listed below, but not drawn. A narrower
                  filter draws them.
                </p>
              )}
              {!isWildcard(filter) && store.numberless > 0 && (
                <p class="soft note">
                  {formatCount(store.numberless)} of {formatCount(store.received)} messages here hold no number.
                </p>
              )}
              <Thresholds thresholds={thresholds} fields={fields} />
            </section>
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
      <CopyAs filter={filter} since={since} />
    </>
  );
}

/** Heights of a panel's parts in pixels, as the style sheet has them. */
const AXIS = 24;
const CAPTION = 26;

/** A panel's height: about a third of the page for one, and less for each of several. */
function heightOf(panels: number): number {
  const [part, least] = panels === 1 ? [0.36, 260] : panels === 2 ? [0.25, 190] : [0.19, 160];
  return Math.round(Math.max(least, Math.min(innerHeight * part, 3 * least)));
}

/** How much height a frame leaves for its charts: the page is as tall as whoever embeds it made it. */
function useRoom(embed: boolean): [number, RefObject<HTMLDivElement | null>] {
  const box = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(innerHeight - 50);
  useLayoutEffect(() => {
    const element = box.current;
    if (!embed || !element) return undefined;
    const observer = new ResizeObserver(() => setRoom(element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  });
  return [room, box];
}

/** Why an embedded chart shows nothing new, in a few words; "" while it is live. */
function embedProblem(): string {
  if (refused.value) return refusalTitle();
  if (isLive.value) return "";
  const { state } = link.value;
  const gateway = state === "waiting" || state === "closed";
  if (!gateway && state !== "open") return "";
  return `${gateway ? "No connection" : "The broker is away"}${asOf() ? `, ${asOf()}` : ""}`;
}

/** What is drawn before anyone chose: the wanted readings, or whatever there is. */
function defaultFields(all: readonly Field[], store: LiveStore): Field[] {
  const wanted = all.filter((field) => fieldRank(field) < 500);
  const pool = wanted.length > 0 ? wanted : all;
  // With many topics each panel is full of lines: one is enough to begin with.
  return pool.slice(0, store.topics.size > 3 ? 1 : PANELS);
}

/** Topics that have a series of these fields, in a stable order: a newcomer mustn't recolour the others. */
function useSortedTopics(store: LiveStore, fields: readonly Field[]): string[] {
  const known = useRef<string[]>([]);
  const since = useRef(performance.now());
  const has = (topic: string) => fields.some((field) => store.series.has(LiveStore.key(topic, field)));
  const fresh: string[] = [];
  const seen = new Set(known.current);
  for (const topic of store.topics.keys()) if (!seen.has(topic) && has(topic)) fresh.push(topic);
  if (fresh.length > 0) {
    // While history comes in all are newcomers, in the order of time; people read in that of names.
    const early = seen.size === 0 || performance.now() - since.current < 2000;
    known.current = early
      ? [...known.current, ...fresh].sort(compareNames)
      : [...known.current, ...fresh.sort(compareNames)];
  }
  return known.current.filter(has);
}

function emptyWords(state: State): string {
  if (link.value.state !== "open") return "Connecting…";
  return state.subscribed ? "No numbers yet." : "Waiting…";
}

function FilterHead({ filter }: { filter: string }) {
  const [text, setText] = useState(filter);
  useEffect(() => setText(filter), [filter]);
  const problem = filterProblem(text);
  return (
    <header class="filter-head">
      <h1 class="sr">{filter}</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (problem === null && text !== filter) navigate(to.live(text));
        }}
      >
        <label for="filter" class="sr">
          Topic filter
        </label>
        <input
          id="filter"
          class="filter"
          value={text}
          spellcheck={false}
          autocapitalize="off"
          autoComplete="off"
          aria-invalid={problem !== null}
          aria-describedby="filter-problem"
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => event.key === "Escape" && setText(filter)}
        />
        <button type="submit" class={text === filter ? "hide" : ""} disabled={problem !== null || text === filter}>
          Show
        </button>
      </form>
      <p id="filter-problem" class="problem" role="status">
        {text === filter ? "" : (problem ?? "")}
      </p>
    </header>
  );
}

interface NothingProps {
  filter: string;
  refusal: string | null;
  subscribed: boolean;
}

function Nothing({ filter, refusal, subscribed }: NothingProps) {
  // Wait a moment before saying that there is nothing.
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 600);
    return () => clearTimeout(timer);
  }, []);
  if (refusal !== null) {
    return (
      <Empty title="The gateway refused this">
        <p>{refusal}</p>
        <button type="button" onClick={() => setParams({ since: null, from: null, to: null })}>
          Show the last {DEFAULT_RANGE}
        </button>
      </Empty>
    );
  }
  if (!late || !subscribed) return <p class="late soft">{link.value.state === "open" ? "Waiting…" : "Connecting…"}</p>;
  return (
    <Empty title="Nothing here yet">
      <p>
        This page listens to <code>{filter}</code> and shows the first message as it comes.
      </p>
      <Explain filter={filter} />
    </Empty>
  );
}

interface LossesProps {
  store: LiveStore;
  recovered: boolean | undefined;
  /** The store's; it is changed in place, and what looks the same isn't drawn again. */
  version: number;
}

function Losses({ store, recovered }: LossesProps) {
  if (store.gaps.length === 0 && store.skipped === 0 && recovered !== false) return null;
  const reasons = new Map<string, { gaps: number; lost: number | null }>();
  for (const gap of store.gaps) {
    const entry = reasons.get(gap.reason) ?? { gaps: 0, lost: 0 };
    entry.gaps++;
    entry.lost = entry.lost === null || gap.lost === null ? null : entry.lost + gap.lost;
    reasons.set(gap.reason, entry);
  }
  return (
    <p class="losses" role="status">
      {[...reasons].map(([reason, entry]) => (
        <span key={reason} title={GAP_WORDS[reason] ?? reason}>
          <b>{entry.lost === null ? "Some" : formatCount(entry.lost)}</b> missing: {GAP_WORDS[reason] ?? reason}.{" "}
        </span>
      ))}
      {store.skipped > 0 && (
        <span>
          <b>{formatCount(store.skipped)}</b> left out while this tab was hidden.
        </span>
      )}
      {recovered === false && reasons.size === 0 && <span>History doesn’t reach back so far.</span>}
    </p>
  );
}

function FieldChips({ all, chosen }: { all: readonly Field[]; chosen: readonly Field[] }) {
  const [more, setMore] = useState(false);
  if (all.length < 2) return null;
  const LIMIT = 10;
  // Clocks and counters are numbers too, but nobody opens a chart to see them.
  const isWanted = (field: Field, index: number) => index < LIMIT && fieldRank(field) < 1000;
  const shown = more ? all : all.filter((field, index) => isWanted(field, index) || chosen.includes(field));
  if (shown.length < 2 && all.length === shown.length) return null;
  const toggle = (field: Field) => {
    const next = chosen.includes(field) ? chosen.filter((entry) => entry !== field) : [...chosen, field];
    if (next.length > 0) setParams({ field: all.filter((entry) => next.includes(entry)) });
  };
  return (
    <fieldset class="chips">
      <legend class="sr">Fields to draw</legend>
      {shown.map((field) => (
        <button key={field} type="button" aria-pressed={chosen.includes(field)} onClick={() => toggle(field)}>
          {fieldLabel(field)}
        </button>
      ))}
      {all.length > shown.length && (
        <button type="button" class="more" onClick={() => setMore(true)}>
          {all.length - shown.length} more
        </button>
      )}
    </fieldset>
  );
}

interface LegendProps {
  topics: readonly string[];
  labels: readonly string[];
  on: ReadonlySet<string>;
  store: LiveStore;
  field: Field;
  unit: string;
  at: number;
}

function Legend({ topics, labels, on, store, field, unit, at }: LegendProps) {
  const [search, setSearch] = useState("");
  const MANY = 24;
  const toggle = (topic: string) => {
    const next = new Set(on);
    if (!next.delete(topic)) next.add(topic);
    setParams({ show: next.size > 0 ? [...next] : null });
  };
  const entries = topics
    .map((topic, index) => ({ topic, index, label: labels[index] ?? topic }))
    .sort((a, b) => Number(on.has(b.topic)) - Number(on.has(a.topic)) || a.index - b.index)
    .filter(({ topic, label }) => search === "" || `${label} ${topic}`.toLowerCase().includes(search.toLowerCase()));
  const shown = entries.slice(0, search === "" ? MANY : 100);
  return (
    <div class="legend">
      {topics.length > MANY && (
        <label class="search small">
          <span class="sr">Search series</span>
          <input
            type="search"
            placeholder={`Search ${formatCount(topics.length)} topics`}
            value={search}
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
        </label>
      )}
      {shown.map(({ topic, index, label }) => {
        const series = store.series.get(LiveStore.key(topic, field));
        const value = series?.valueAt(at) ?? null;
        return (
          <button
            key={topic}
            type="button"
            class={`series-${(index % PALETTE) + 1}`}
            aria-pressed={on.has(topic)}
            title={topic}
            onClick={() => toggle(topic)}
          >
            <span class={`swatch${index >= PALETTE ? " dashed" : ""}`} aria-hidden="true" />
            <span class="series-name">{label}</span>
            <span class="num">
              {series === undefined || value === null ? "–" : formatSteady(value, series.decimals)}
              <span class="unit">{unit}</span>
            </span>
          </button>
        );
      })}
      {entries.length > shown.length && <span class="soft">and {formatCount(entries.length - shown.length)} more</span>}
    </div>
  );
}

function Thresholds({ thresholds, fields }: { thresholds: readonly Threshold[]; fields: readonly Field[] }) {
  const [field, setField] = useState<Field | null>(null);
  const [side, setSide] = useState(">");
  const [value, setValue] = useState("");
  const at = field !== null && fields.includes(field) ? field : (fields[0] ?? "");
  const number = Number(value.replace(",", "."));
  const usable = value.trim() !== "" && Number.isFinite(number);
  const set = (next: readonly Threshold[]) => setParams({ limit: next.map(thresholdText) });
  return (
    <details class="thresholds" open={thresholds.length > 0}>
      <summary>Thresholds</summary>
      <div class="row">
        {thresholds.map((threshold) => (
          <span class="chip" key={thresholdText(threshold)}>
            {fieldLabel(threshold.field)} {threshold.above ? "above" : "below"} {formatNumber(threshold.value)}
            <button
              type="button"
              aria-label={`Remove: ${fieldLabel(threshold.field)} ${threshold.above ? "above" : "below"} ${threshold.value}`}
              onClick={() => set(thresholds.filter((entry) => entry !== threshold))}
            >
              <CloseIcon />
            </button>
          </span>
        ))}
        <form
          class="row"
          onSubmit={(event) => {
            event.preventDefault();
            if (!usable) return;
            set([...thresholds, { field: at, above: side === ">", value: number }]);
            setValue("");
          }}
        >
          {fields.length > 1 && (
            <select aria-label="Field" value={at} onChange={(event) => setField(event.currentTarget.value)}>
              {fields.map((entry) => (
                <option key={entry} value={entry}>
                  {fieldLabel(entry)}
                </option>
              ))}
            </select>
          )}
          <select aria-label="Side" value={side} onChange={(event) => setSide(event.currentTarget.value)}>
            <option value=">">above</option>
            <option value="<">below</option>
          </select>
          <input
            aria-label="Value"
            inputMode="decimal"
            size={7}
            value={value}
            onInput={(event) => setValue(event.currentTarget.value)}
          />
          <button type="submit" disabled={!usable}>
            Add
          </button>
        </form>
      </div>
    </details>
  );
}

interface MessagesProps {
  store: LiveStore;
  /** The store's; it is changed in place, and what looks the same isn't drawn again. */
  version: number;
  downloads: ComponentChildren;
  wild: boolean;
  picked: StoredMessage | null;
  onPick: (message: StoredMessage) => void;
}

function Messages({ store, downloads, wild, picked, onPick }: MessagesProps) {
  const [search, setSearch] = useState("");
  const scroller = useRef<HTMLDivElement>(null);
  const list = useRef<HTMLDivElement>(null);
  const wide = useWide(620);
  const rowHeight = wide || !wild ? 26 : 44;
  const held = store.length;
  const needle = search.trim().toLowerCase();
  // Newest first: index 0 is the last row that is shown.
  let found: Row[] | null = null;
  if (needle !== "") {
    found = [];
    for (let index = held - 1; index >= 0 && found.length < 2000; index--) {
      const row = store.row(index);
      if (row?.kind !== "message") continue;
      if (`${row.message.topic} ${oneLine(row.message.payload, 2000)}`.toLowerCase().includes(needle)) found.push(row);
    }
  }
  const count = found ? found.length : held;
  const rowAt = (index: number): Row | undefined => (found ? found[index] : store.row(held - 1 - index));
  const range = useVisibleRows(list, count, rowHeight, scroller);
  const oldest = store.row(0);
  const dated = oldest?.kind === "message" && !isToday(oldest.message.time);

  const show = (at: number) => {
    const box = scroller.current;
    if (box && (at * rowHeight < box.scrollTop || (at + 1) * rowHeight > box.scrollTop + box.clientHeight)) {
      box.scrollTop = at * rowHeight - box.clientHeight / 2;
    }
  };
  /** Picks the first message at a row or, where a loss stands there, beyond it. */
  const pickFrom = (start: number, step: number) => {
    for (let at = Math.max(0, Math.min(count - 1, start)); at >= 0 && at < count; at += step) {
      const row = rowAt(at);
      if (row?.kind !== "message") continue;
      onPick(row.message);
      show(at);
      return;
    }
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    let index = -1;
    for (let at = 0; picked && at < count; at++) {
      const row = rowAt(at);
      if (row?.kind === "message" && row.message.n === picked.n) {
        index = at;
        break;
      }
    }
    const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 300) / rowHeight) - 1);
    if (event.key === "ArrowDown") pickFrom(index + 1, 1);
    else if (event.key === "ArrowUp") pickFrom(index - 1, -1);
    else if (event.key === "PageDown") pickFrom(index + page, 1);
    else if (event.key === "PageUp") pickFrom(index - page, -1);
    else if (event.key === "Home") pickFrom(0, 1);
    else if (event.key === "End") pickFrom(count - 1, -1);
    else return;
    event.preventDefault();
  };
  return (
    <section class="messages" aria-labelledby="messages-title">
      <div class="section-head">
        <h2 id="messages-title">Messages</h2>
        <label class="search small">
          <span class="sr">Search messages</span>
          <input
            type="search"
            placeholder="Search"
            value={search}
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
        </label>
        <span class="spread" />
        {downloads}
      </div>
      <div
        ref={scroller}
        class={`message-box${wild ? " wild" : ""}${wide ? "" : " tall"}`}
        style={dated ? { "--moment": "142px" } : undefined}
        role="listbox"
        aria-label="Messages, newest first"
        tabIndex={0}
        aria-activedescendant={picked ? `message-${picked.n}` : undefined}
        onKeyDown={onKey}
      >
        <Rows list={list} count={count} rowHeight={rowHeight} range={range} role="presentation">
          {(index) => {
            const row = rowAt(index);
            if (!row) return null;
            if (row.kind === "gap") {
              return (
                <div
                  key={`gap-${row.gap.from}-${index}`}
                  class="m-row gap"
                  role="option"
                  aria-selected="false"
                  style={rowStyle(index, rowHeight)}
                >
                  {row.gap.lost === null ? "Messages" : formatCount(row.gap.lost)} missing:{" "}
                  {GAP_WORDS[row.gap.reason] ?? row.gap.reason}
                </div>
              );
            }
            const message = row.message;
            return (
              // The list has the focus and the keys (aria-activedescendant); the pointer works on the rows.
              <div
                key={message.n}
                id={`message-${message.n}`}
                class={`m-row${message.replayed ? " past" : ""}${picked?.n === message.n ? " selected" : ""}`}
                role="option"
                aria-selected={picked?.n === message.n}
                style={rowStyle(index, rowHeight)}
                onClick={() => onPick(message)}
              >
                <span class="m-time num" title={formatDateTime(message.time)}>
                  {formatMoment(message.time, true)}
                </span>
                {wild && <span class="m-topic">{message.topic}</span>}
                <code class="m-payload">{summary(message.payload, message.encoding, 240)}</code>
                {message.retained && <span class="m-flag">retained</span>}
                {message.skipped > 0 && <span class="m-flag">+{message.skipped}</span>}
              </div>
            );
          }}
        </Rows>
      </div>
    </section>
  );
}

type Form = "formatted" | "raw" | "hex";

interface InspectorProps {
  store: LiveStore;
  version: number;
  picked: StoredMessage | null;
  onFollow: () => void;
}

function Inspector({ store, picked, onFollow }: InspectorProps) {
  const asked = route.value.params.get("as");
  const form: Form = asked === "raw" || asked === "hex" ? asked : "formatted";
  let message = picked;
  if (!message) {
    for (let index = store.length - 1; index >= 0; index--) {
      const row = store.row(index);
      if (row?.kind === "message") {
        message = row.message;
        break;
      }
    }
  }
  if (!message) return null;
  const previous = store.before(message);
  return (
    <section class="inspector" aria-labelledby="inspector-title">
      <div class="section-head">
        <h2 id="inspector-title">{picked ? "Message" : "Newest message"}</h2>
        {picked && (
          <button type="button" class="quiet" onClick={onFollow}>
            Follow the newest
          </button>
        )}
        <span class="spread" />
        <fieldset class="segments">
          <legend class="sr">Show the payload as</legend>
          {(["formatted", "raw", "hex"] as const).map((entry) => (
            <button
              key={entry}
              type="button"
              aria-pressed={form === entry}
              onClick={() => setParams({ as: entry === "formatted" ? null : entry })}
            >
              {entry === "formatted" ? "Formatted" : entry === "raw" ? "Raw" : "Hex"}
            </button>
          ))}
        </fieldset>
      </div>
      <p class="about num">
        <span class="topic">{message.topic}</span>
        <span>{formatMoment(message.time, true)}</span>
        <span>{previous ? `${formatSpan(message.time - previous.time)} after the one before` : "first one here"}</span>
        {message.qos > 0 && <span>QoS {message.qos}</span>}
        {message.retained && <span>retained</span>}
        <span>seq {message.seq}</span>
      </p>
      {form === "formatted" ? (
        <PayloadView
          payload={message.payload}
          encoding={message.encoding}
          previous={previous && previous.encoding === message.encoding ? previous.payload : undefined}
        />
      ) : (
        <Exact message={message} form={form} />
      )}
    </section>
  );
}

/** The payload's own bytes: JSON that was parsed and written again would hide how it was sent. */
function Exact({ message, form }: { message: StoredMessage; form: "raw" | "hex" }) {
  const [bytes, setBytes] = useState<{ n: number; data: Uint8Array; exact: boolean } | null>(null);
  useEffect(() => {
    let gone = false;
    api.exactBytes(message).then((data) => {
      if (!gone) setBytes({ n: message.n, ...data });
    });
    return () => {
      gone = true;
    };
  }, [message]);
  if (!bytes) return <p class="late soft">Fetching the bytes…</p>;
  const text = form === "raw" ? utf8(bytes.data) : null;
  return (
    <>
      {text === null ? (
        <Hex bytes={bytes.data} />
      ) : text === "" ? (
        <p class="soft">An empty payload.</p>
      ) : (
        <Raw text={text} />
      )}
      {!bytes.exact && <p class="soft">Written from the value: the gateway no longer has this message’s own bytes.</p>}
    </>
  );
}

/** The text of bytes that are UTF-8; null for others, which are then shown as bytes. */
function utf8(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

function Downloads({ filter, since }: { filter: string; since: string }) {
  const [said, setSaid] = useState("");
  const get = async (form: "csv" | "ndjson") => {
    setSaid("…");
    try {
      setSaid(formatBytes(await api.download(filter, since, form)));
    } catch (error) {
      setSaid((error as Error).message);
    }
  };
  return (
    <span class="downloads">
      <DownloadIcon />
      <button type="button" class="quiet" onClick={() => get("csv")} title={`The last ${since} as CSV`}>
        CSV
      </button>
      <button type="button" class="quiet" onClick={() => get("ndjson")} title={`The last ${since} as NDJSON`}>
        NDJSON
      </button>
      <span class="soft num said" role="status">
        {said}
      </span>
    </span>
  );
}

function CopyAs({ filter, since }: { filter: string; since: string }) {
  const forms = copyForms(base.href, filter, since, token.value !== null);
  const [name, setName] = useState(forms[0]?.name ?? "");
  const form = forms.find((entry) => entry.name === name) ?? forms[0];
  if (!form) return null;
  return (
    <section class="copy-as" aria-labelledby="copy-title">
      <div class="section-head">
        <h2 id="copy-title">Use it elsewhere</h2>
        <fieldset class="segments">
          <legend class="sr">Copy as</legend>
          {forms.map((entry) => (
            <button
              key={entry.name}
              type="button"
              aria-pressed={entry.name === form.name}
              onClick={() => setName(entry.name)}
            >
              {entry.name}
            </button>
          ))}
        </fieldset>
        <span class="spread" />
        <CopyButton text={form.text} label={`as ${form.name}`} />
      </div>
      <pre tabIndex={0}>{form.text}</pre>
      {form.note && <p class="soft">{form.note}</p>}
    </section>
  );
}

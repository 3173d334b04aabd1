/**
 * A topic or filter, live: what it says, how it went, and how to take it elsewhere.
 *
 * It is long because all its parts show one stretch of time of one stream, and each may change it for the others.
 */

import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { distinctLevels, filterProblem, isWildcard } from "../../core/filter.ts";
import { counted, formatCount, formatMoment, parseSpan } from "../../core/format.ts";
import { type Lens, lensOf } from "../../core/lens.ts";
import type { Mark } from "../../core/marks.ts";
import { Beat, beatOf, drawableHz, paceOf } from "../../core/pace.ts";
import { Pieces } from "../../core/past.ts";
import { seriesKey } from "../../core/series.ts";
import {
  LIMITS,
  type LiveStore,
  offeredFields,
  oldestTime,
  parseThreshold,
  type StoredMessage,
  withNewcomers,
} from "../../core/store.ts";
import { defaultFields, type Field, fieldLabel, unitIn } from "../../core/values.ts";
import { cutAt, heldBefore, liveWindow, parseWindow, scaled, type TimeWindow } from "../../core/window.ts";
import { t } from "../../core/words.ts";
import { arrived, fleet, holdFleetFeed, settled } from "../../fleet.ts";
import { identity } from "../../identity.ts";
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
import { Lanes, MAX_LANES } from "./lanes.tsx";
import { Legend } from "./legend.tsx";
import { Losses } from "./losses.tsx";
import { useMarks } from "./marks.ts";
import { Messages } from "./messages.tsx";
import { Nothing } from "./nothing.tsx";
import type { PanelLine } from "./panel.tsx";
import { lineFrom, statesFrom, usePast } from "./past.ts";
import { Progress } from "./progress.tsx";
import { DEFAULT_RANGE } from "./ranges.tsx";
import { chosenScales, Scales } from "./scales.tsx";
import { Thresholds } from "./thresholds.tsx";
import { Tools } from "./tools.tsx";
import { TrackArea } from "./track.tsx";
import { heardTopics, useWatch } from "./watch.ts";

/** Lines that are on before anyone chose: as many as there are colours that can be told apart. */
const LINES = PALETTE;
const NO_LINES: readonly PanelLine[] = [];
/** While history comes in all topics are newcomers, in the order of time; people read in that of names. */
const EARLY_MS = 2000;

/** A picture that stands still, and what it shows: messages that come meanwhile can push nothing out of it. */
interface Paused {
  at: number;
  /** Messages that had come by then. */
  n: number;
  store: LiveStore;
}

/** One quantity of all devices that have it. */
export function QuantityView({ name }: { name: string }) {
  useTicker(1);
  arrived.value;
  const known = identity.value !== undefined;
  useLayoutEffect(() => (known ? holdFleetFeed() : undefined), [known]);
  const lens = lensOf(fleet.devices.values(), name);
  const since = route.value.params.get("since") ?? DEFAULT_RANGE;
  const key = `${[...lens.places].map(([id, { topic, path }]) => `${id} ${topic} ${path}`).join("\n")}\n${since}`;
  // which devices there are is looked at at one pace, and what they say drawn at another
  const watching = useMemo(() => <Watching key={key} filter="" since={since} embed={false} lens={lens} />, [key]);
  if (lens.places.size === 0)
    return (
      <>
        <header class="view-head">
          <h1>{quantityTitle(name)}</h1>
        </header>
        {settled.value ? (
          <Empty title={t("No device has it")} />
        ) : (
          <p class="late soft">{t("Waiting for the devices…")}</p>
        )}
      </>
    );
  return watching;
}

export function LiveView({ filter, embed }: { filter: string; embed: boolean }) {
  const problem = filterProblem(filter);
  if (problem !== null) {
    return (
      <>
        <FilterHead filter={filter} />
        <Empty title={t("This isn’t a topic filter")}>
          <p>{problem}</p>
          <p>
            {t("For example")} <a href={to.live("sensors/+/state")}>sensors/+/state</a>
            {t(", the states of all sensors, or")} <a href={to.live("home/#")}>home/#</a>
            {t(", everything below home.")}
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

interface WatchingProps {
  filter: string;
  since: string;
  embed: boolean;
  /** What is seen instead of a filter's topics. */
  lens?: Lens;
  /** Of a view that somebody put together: only the charts of these fields, with these marks. */
  part?: { fields: readonly Field[]; marks: string };
}

/** The charts of a filter as a part of a page, all with the window that the address names. */
export function ChartsOf({ filter, since, part }: { filter: string; since: string; part: WatchingProps["part"] & {} }) {
  return <Watching key={`${filter}\n${since}`} filter={filter} since={since} embed={false} part={part} />;
}

function Watching({ filter, since, embed, lens: given, part }: WatchingProps) {
  // the view is made anew for other devices
  const lens = useRef(given ?? null).current;
  const beat = useMemo(() => new Beat(), []);
  const opened = useRef(performance.now());
  const params = route.value.params;
  const span = parseSpan(since) ?? 15 * 60_000;
  useTicker(span <= 5 * 60_000 ? 4 : 2);
  const [paused, setPaused] = useState<Paused | null>(null);
  const [hover, setHover] = useState<number | null>(null);
  const [picked, setPicked] = useState<StoredMessage | null>(null);
  // null until it was measured
  const [measured, setPixels] = useState<number | null>(null);
  const pixels = measured ?? innerWidth;
  const { zoomed, dragging, moves } = useMoves(paused, () =>
    setPaused(paused ? null : { at: viewNow(), n: heard.store.arrived, store: heard.store.snapshot() }),
  );
  const hasList = !embed && lens === null;
  const drawable = drawableHz(zoomed ? zoomed.to - zoomed.from : span, pixels);
  // what a message of Sparkplug lacks stands in one before it, which is not to be left out
  const isPartial = lens !== null && [...lens.places.values()].some(({ metric }) => metric !== null);
  const takesAll = hasList || isPartial;
  const firstPace = paceOf({ hasList: takesAll, rate: 0, isPaced: false }, drawable);
  const heard = useWatch(filter, since, parseWindow(params)?.from ?? null, lens, firstPace);
  heard.pace(
    paceOf(
      {
        hasList: takesAll || heard.store.hasParts,
        rate: heard.rate.read(gatewayNow()),
        isPaced: Number.isFinite(heard.hz),
      },
      drawable,
    ),
  );

  const store = paused?.store ?? heard.store;
  // While history comes in each part of it is drawn; then what is drawn stands still between two beats, whatever else is.
  const isEarly = performance.now() - opened.current < EARLY_MS;
  const step = isEarly ? 1 : beatOf(zoomed ? zoomed.to - zoomed.from : span, pixels);
  beat.tick(viewNow(), store.version, step);
  const now = paused?.at ?? beat.now;

  const marks = useMarks(part?.marks ?? params.get("marks") ?? "", since, parseWindow(params)?.from ?? null);
  const chosenFields = part?.fields ?? params.getAll("field");
  const allFields = offeredFields(store);
  const fields = lens
    ? [lens.name]
    : chosenFields.length > 0
      ? chosenFields
      : defaultFields(allFields, store.topics.size, (field) => heard.units.isService(field));
  const thresholds = params.getAll("limit").flatMap((text) => parseThreshold(text) ?? []);
  const scales = chosenScales(params);
  const hidden = new Set(params.getAll("hide"));
  const shownTopics = params.getAll("show");

  const heardTopics = useSortedTopics(store, fields);
  const topics = lens ? [...lens.places.keys()] : heardTopics;
  const labels = lens
    ? topics.map((id) => lens.labels.get(id) ?? id)
    : heard.units.name(topics, distinctLevels(topics));
  const on = topics.filter((topic, index) =>
    shownTopics.length > 0 ? shownTopics.includes(topic) : index < LINES && !hidden.has(topic),
  );

  /** Whether the store has all that is drawn of these lines from a moment on. */
  const isWhole = (from: number): boolean => {
    if (heard.wholeSince === null || from < Math.max(heard.wholeSince, store.thinnedUntil)) return false;
    return on.every((topic) =>
      fields.every((field) => {
        const series = store.series.get(seriesKey(topic, field));
        return !series || series.dropped === 0 || series.time(0) <= from;
      }),
    );
  };
  const pieces = useMemo(() => new Pieces(), []);
  const oldest = isWhole(now - span)
    ? oldestTime(store)
    : earlier(pieces.oldest(on, fields, zoomed?.from ?? now - span), oldestTime(store));
  const window: TimeWindow = zoomed ?? liveWindow(span, now, oldest);
  const whole = isWhole(window.from);
  const states = store.states;
  const stated = lens ? [] : states.slice(0, MAX_LANES);
  const past = usePast(pieces, {
    store,
    // without a chart nothing is measured: lanes of states alone
    isWanted: !whole && (measured !== null || fields.length === 0) && (heard.subscribed || heard.wholeSince !== null),
    need: {
      topics: [...new Set([...on, ...stated.map(({ topic }) => topic)])],
      fields: [...new Set([...fields, ...stated.map(({ field }) => field)])],
      window,
      pixels,
      now,
    },
    lens,
  });
  const beaten = paused ? "" : `${beat.version} ${now}`;
  const drawn = useMemo(
    () =>
      new Map(
        fields.map((field) => [
          field,
          on.flatMap((topic): PanelLine[] => {
            const line = lineFrom(past.source(whole), topic, field, window, pixels, now, store.gaps);
            const index = topics.indexOf(topic);
            const decimals = store.series.get(seriesKey(topic, field))?.decimals ?? 2;
            return line ? [{ line, topic, label: labels[index] ?? topic, colour: index, decimals }] : [];
          }),
        ]),
      ),
    [beaten, past.version, whole, pixels, window.from, window.to, on.join("\n"), fields.join("\n"), labels.join("\n")],
  );

  /** What devices announce, else what stands behind the numbers themselves where all say the same. */
  const unitOf = (field: Field): string => {
    if (lens) return lens.unit;
    const announced = heard.units.of(field, topics);
    if (announced !== "") return announced;
    const said = new Set(on.map((topic) => unitIn(store.topics.get(topic)?.last.payload, field)));
    return said.size === 1 ? ([...said][0] ?? "") : "";
  };

  const charts = (
    <Charts
      gaps={store.gaps}
      unit={unitOf}
      fields={fields}
      lines={(field) => drawn.get(field) ?? NO_LINES}
      thresholds={thresholds}
      marks={marks}
      scales={scales}
      window={window}
      hover={dragging ? null : hover}
      onHover={setHover}
      onWidth={setPixels}
      moves={moves(window)}
      fills={embed}
      named={isWildcard(filter) && topics.length === 1}
    />
  );
  const statesLabels = heard.units.name(
    states.map(({ topic }) => topic),
    distinctLevels(states.map(({ topic }) => topic)),
  );
  const lanes = states.length > 0 && (
    <Lanes
      states={states.map((each) => statesFrom(past.source(whole), each, window, now))}
      labels={statesLabels}
      window={window}
      now={now}
      hover={hover}
    />
  );
  const legend = topics.length > 1 && fields.length > 0 && (
    <Legend
      topics={topics}
      labels={labels}
      on={new Set(on)}
      lines={drawn.get(fields[0] ?? "") ?? NO_LINES}
      newest={(topic) => {
        const series = store.series.get(seriesKey(topic, fields[0] ?? ""));
        const value = series?.valueAt(window.to) ?? null;
        return series && value !== null ? { value, decimals: series.decimals } : null;
      }}
      unit={unitOf(fields[0] ?? "")}
      hover={hover}
    />
  );
  if (embed) {
    return (
      <Embed filter={filter} charts={fields.length > 0 ? charts : null} legend={legend} subscribed={heard.subscribed} />
    );
  }

  const name = isWildcard(filter) || lens ? null : heard.units.nameOf(filter);
  const area = (
    <section class="chart-area" aria-label={part ? undefined : t("Chart")}>
      {allFields.length > 1 && !part && (
        <div class="chart-tools">
          <FieldChips all={allFields} chosen={fields} />
        </div>
      )}
      {fields.length > 0 && charts}
      {lanes}
      {!lens && (
        <TrackArea
          store={store}
          filter={filter}
          since={isWhole(window.from) ? null : (zoomed?.from ?? since)}
          window={window}
          labels={(tracked) => heard.units.name(tracked, distinctLevels(tracked))}
          hover={dragging ? null : hover}
          onHover={setHover}
        />
      )}
      {legend}
      <Progress
        past={past}
        zoomed={zoomed !== null}
        span={span}
        window={window}
        now={now}
        isKnown={whole || past.piece !== null}
        isEmpty={
          fields.length > 0 && [...drawn.values()].every((lines) => lines.every(({ line }) => line.stats === null))
        }
        oldest={oldest ?? past.piece?.oldest ?? null}
      />
      {store.unplotted > 0 && (
        <p class="warn note" role="status">
          {t("More than")} {formatCount(LIMITS.series)}{" "}
          {t("lines: the others are listed below, but not drawn. A narrower filter draws them.")}
        </p>
      )}
      {!isWildcard(filter) && store.numberless > 0 && (
        <p class="soft note">
          {formatCount(store.numberless)} {t("of")} {counted(store.received, "message")} {t("here")}{" "}
          {store.numberless === 1 ? t("holds") : t("hold")} {t("no number.")}
        </p>
      )}
      {marks.length > 0 && <Marks marks={marks} window={window} />}
      {!part && (
        <div class="options">
          {fields.length > 0 && <Scales fields={fields} scales={scales} />}
          {fields.length > 0 && <Thresholds thresholds={thresholds} fields={fields} />}
        </div>
      )}
    </section>
  );
  if (part) {
    if (store.received > 0) return area;
    return (
      <p class="late soft">{heard.refusal ?? (heard.subscribed ? t("Nothing came in this time.") : t("Waiting…"))}</p>
    );
  }
  return (
    <>
      {lens ? (
        <header class="view-head">
          <h1>{quantityTitle(lens.name)}</h1>
        </header>
      ) : (
        <FilterHead filter={filter} />
      )}
      {name !== null && (
        <p class="device-name">
          <a href={to.device(fleet.ownersOf(filter)[0]?.id ?? `sensors_${filter.split("/")[1]}`)}>{name}</a>
        </p>
      )}
      <Tools
        since={since}
        window={window}
        zoomed={zoomed !== null}
        pausedAt={paused?.n ?? null}
        heard={heard}
        store={store}
        kind={lens ? "device" : "topic"}
        lines={fields.length > 0 ? topics.length : store.topics.size}
        moves={moves(window)}
      />
      <Losses
        store={store}
        recovered={heard.recovered}
        skipped={hasList ? store.skipped : 0}
        hz={heard.hz}
        version={store.version}
      />
      {lens ? (
        <>
          <LensNotes lens={lens} />
          {area}
        </>
      ) : store.received === 0 ? (
        <Nothing filter={filter} refusal={heard.refusal} subscribed={heard.subscribed} />
      ) : (
        <>
          {allFields.length > 0 || states.length > 0 ? (
            area
          ) : (
            <p class="soft no-numbers">{t("No numbers in these payloads, so there is nothing to draw.")}</p>
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
            <Inspector
              store={store}
              version={store.version}
              picked={picked}
              onFollow={() => setPicked(null)}
              below={isWildcard(filter) ? filter : null}
            />
          </div>
        </>
      )}
      {!lens && <Elsewhere filter={filter} since={since} />}
    </>
  );
}

const quantityTitle = (name: string) => t("{name} of all devices", { name: fieldLabel(name) });

/** Which devices are not in the chart. */
function LensNotes({ lens }: { lens: Lens }) {
  const topics = new Set(heardTopics(lens));
  const heard = [...lens.places.values()].filter(({ topic }) => topics.has(topic)).length;
  return (
    <>
      {lens.others > 0 && (
        <p class="soft note">
          {counted(lens.others, "device has", "devices have")} {t("it in another unit than")} {lens.unit}.
        </p>
      )}
      {heard < lens.places.size && (
        <p class="soft note">
          {t("The first")} {formatCount(heard)} {t("of")} {formatCount(lens.places.size)}{" "}
          {t("devices are listened to.")}
        </p>
      )}
    </>
  );
}

/** The marks in words, for those who see no lines. */
function Marks({ marks, window }: { marks: readonly Mark[]; window: TimeWindow }) {
  const shown = marks.filter(({ time }) => time >= window.from && time <= window.to);
  if (shown.length === 0) return null;
  return (
    <details class="marks">
      <summary>
        {formatCount(shown.length)} {shown.length === 1 ? t("mark") : t("marks")}
      </summary>
      <ul>
        {shown
          .slice(-50)
          .reverse()
          .map(({ time, text }) => (
            <li key={`${time} ${text}`}>
              <time class="num soft">{formatMoment(time)}</time> {text}
            </li>
          ))}
      </ul>
    </details>
  );
}

/** The earlier of two moments; null where one of them isn't known yet. */
function earlier(known: { time: number | null } | null, other: number | null): number | null {
  if (known === null) return null;
  return known.time === null || other === null ? (known.time ?? other) : Math.min(known.time, other);
}

/** How long keys and gestures may pause before what they did is in the address, in milliseconds. */
const SETTLE_MS = 250;

/**
 * The window that the address names, and the one to which it is being moved: the address gets it when that ends, so that
 * Back undoes all of it.
 */
function useMoves(paused: Paused | null, togglePause: () => void) {
  const [dragged, setDragged] = useState<TimeWindow | null>(null);
  const latest = useRef<TimeWindow | null>(null);
  const timer = useRef(0);
  const address = parseWindow(route.value.params);
  const now = () => paused?.at ?? viewNow();
  const put = (window: TimeWindow | null) => {
    latest.current = window;
    setDragged(window);
  };
  const settle = () => {
    clearTimeout(timer.current);
    const window = latest.current;
    if (!window) return;
    setParams({ from: String(window.from), to: String(window.to) }, false);
    put(null);
  };
  // what is moved when the view goes is not kept
  useLayoutEffect(() => () => clearTimeout(timer.current), []);
  const moves = (shown: TimeWindow): Moves => ({
    zoom: (next) => {
      const cut = cutAt(now(), next);
      if (cut) setParams({ from: String(cut.from), to: String(cut.to) }, false);
    },
    drag: (next) => put(cutAt(now(), heldBefore(now(), next)) ?? latest.current),
    settle,
    scale: (factor, shift) => {
      const from = latest.current ?? parseWindow(route.value.params) ?? shown;
      const next = scaled(from, factor, shift);
      put(cutAt(now(), factor === 1 ? heldBefore(now(), next) : next) ?? latest.current);
      clearTimeout(timer.current);
      timer.current = globalThis.setTimeout(settle, SETTLE_MS) as unknown as number;
    },
    reset: () => {
      clearTimeout(timer.current);
      put(null);
      setParams({ from: null, to: null }, false);
    },
    togglePause,
  });
  return { zoomed: dragged ?? address, dragging: dragged !== null, moves };
}

/** Topics that have a series of these fields, in a stable order: a newcomer mustn't recolour the others. */
function useSortedTopics(store: LiveStore, fields: readonly Field[]): string[] {
  const known = useRef<readonly string[]>([]);
  const since = useRef(performance.now());
  const has = (topic: string) =>
    fields.some((field) => store.series.has(seriesKey(topic, field)) && !store.isStated(topic, field));
  const isEarly = known.current.length === 0 || performance.now() - since.current < EARLY_MS;
  known.current = withNewcomers(known.current, [...store.topics.keys()].filter(has), isEarly);
  return known.current.filter(has);
}

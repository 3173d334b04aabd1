/** Views that people put together: several charts and values on one page, in the address, and kept under a name. */

import { useEffect, useMemo, useState } from "preact/hooks";
import * as api from "../../api.ts";
import { readingAt } from "../../core/announced.ts";
import { formatAge, formatNumber } from "../../core/format.ts";
import { parsePath } from "../../core/paths.ts";
import { EMPTY_VIEW, type Part, parseSaved, SAVED_LIMITS, type SavedView, savedText } from "../../core/saved.ts";
import { fieldLabel, firstNumber, summary } from "../../core/values.ts";
import { parseWindow } from "../../core/window.ts";
import { t } from "../../core/words.ts";
import { fleet, holdDevices } from "../../fleet.ts";
import { identity, mayPublish, maySubscribe } from "../../identity.ts";
import { Empty } from "../../parts/bits.tsx";
import { Tile } from "../../parts/picture.tsx";
import { useTicker } from "../../parts/ticker.ts";
import { navigate, route, setParams, to } from "../../router.ts";
import { openFeed, viewNow } from "../../session.ts";
import { metaFilter, Units } from "../../units.ts";
import { ChartsOf } from "../live/live.tsx";
import { EditView, type Kept } from "./edit.tsx";
import { ShareDialog } from "./share.tsx";

/** The topic of a saved view. */
const topicOf = (name: string): string => `${identity.value?.views}/${name}`;

export function SavedViews() {
  const { params, filter: name } = route.value;
  const drawn = params.get("is");
  const kept = useKept(name);
  if (name === "" && drawn === null) return <List />;
  const view = drawn === null ? kept.view : parseSaved(drawn);
  if (view) return <Page key={name} name={name} view={view} isChanged={drawn !== null && name !== ""} kept={kept} />;
  return (
    <>
      <header class="view-head">
        <h1>{name || t("View")}</h1>
      </header>
      {drawn === null && kept.isAsked ? (
        <p class="late soft">{t("Asking the gateway…")}</p>
      ) : (
        <Empty title={t("No such view")}>
          <p>
            {kept.problem ?? (drawn === null ? t("Nothing is kept under this name.") : t("This address holds none."))}
          </p>
          <p>
            <a href={to.saved()}>{t("All views")}</a>
          </p>
        </Empty>
      )}
    </>
  );
}

/** The view that is kept under a name. */
function useKept(name: string): Kept {
  const [state, setState] = useState<Omit<Kept, "renew">>({ view: null, tag: null, isAsked: true, problem: null });
  const [again, setAgain] = useState(0);
  const above = identity.value?.views;
  useEffect(() => {
    if (name === "" || identity.value === undefined) return undefined;
    if (!above) {
      setState({ view: null, tag: null, isAsked: false, problem: t("This gateway keeps no views.") });
      return undefined;
    }
    const aborter = new AbortController();
    setState((before) => ({ ...before, isAsked: true }));
    api.keptText(topicOf(name), aborter.signal).then(
      (found) => {
        const view = found && parseSaved(found.text);
        setState({ view, tag: found?.tag ?? null, isAsked: false, problem: null });
      },
      (error: Error) => {
        if (!aborter.signal.aborted) setState({ view: null, tag: null, isAsked: false, problem: error.message });
      },
    );
    return () => aborter.abort();
  }, [name, above, again]);
  return {
    ...state,
    renew(known) {
      if (known) setState({ ...known, isAsked: false, problem: null });
      else setAgain((count) => count + 1);
    },
  };
}

/** What is kept, by name. */
function List() {
  const [names, setNames] = useState<{ name: string; title: string }[] | null>(null);
  const above = identity.value?.views ?? null;
  const mayRead = above !== null && maySubscribe(`${above}/+`);
  useIdle();
  useEffect(() => {
    if (!mayRead || above === null) return undefined;
    const aborter = new AbortController();
    api.messages([`${above}/+`], { limit: 1000 }, aborter.signal).then(
      ({ messages }) =>
        setNames(
          messages.flatMap(({ topic, payload }) => {
            const view = parseSaved(JSON.stringify(payload));
            return view ? [{ name: topic.slice(above.length + 1), title: view.title }] : [];
          }),
        ),
      () => setNames([]),
    );
    return () => aborter.abort();
  }, [above, mayRead]);
  return (
    <>
      <header class="view-head">
        <h1>{t("Views")}</h1>
        <div class="tools">
          <a class="button" href={to.saved("", `&is=${encodeURIComponent(savedText(EMPTY_VIEW))}&edit=1`)}>
            {t("New view")}
          </a>
        </div>
      </header>
      {names && names.length > 0 ? (
        <ul class="saved-list">
          {names.map(({ name, title }) => (
            <li key={name}>
              <a href={to.saved(name)}>{name}</a>
              <span class="soft">{title}</span>
            </li>
          ))}
        </ul>
      ) : (
        (names !== null || !mayRead) && (
          <Empty title={t("No view is kept here")}>
            <p>
              {t(
                "A view is a page of charts and values of your choice. It is wholly in its address, so that it can be sent to somebody.",
              )}{" "}
              {above === null ? (
                <>
                  {t("With")} <code>GATEWAY_VIEW_TOPIC</code> {t("the gateway keeps views under names, too.")}
                </>
              ) : (
                !mayRead && <>{t("You may not read those that are kept.")}</>
              )}
            </p>
          </Empty>
        )
      )}
    </>
  );
}

/** A page that listens to nothing still says whether it could. */
function useIdle(): void {
  useEffect(() => {
    const feed = openFeed({ topics: [], since: "now", onMessage: () => undefined });
    return () => feed.close();
  }, []);
}

interface PageProps {
  name: string;
  view: SavedView;
  /** The address has another one than is kept. */
  isChanged: boolean;
  kept: Kept;
}

function Page({ name, view, isChanged, kept }: PageProps) {
  useTicker(2);
  useIdle();
  useEffect(() => holdDevices(), []);
  const { params } = route.value;
  const isEdited = params.has("edit");
  const [isSharing, setSharing] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const mayKeep = identity.value?.views != null && name !== "" && mayPublish(topicOf(name)) !== false;
  // a window of the view's own is that of the address, until somebody zooms
  const own = view.window;
  useEffect(() => {
    if (own && !parseWindow(route.value.params)) setParams({ from: String(own.from), to: String(own.to) });
  }, [own?.from, own?.to]);
  const change = (next: SavedView) => {
    const text = savedText(next);
    if (encodeURIComponent(text).length > SAVED_LIMITS.address) setProblem(t("That is more than an address can hold."));
    else {
      setProblem(null);
      setParams({ is: text });
    }
  };
  const remove = () => {
    if (!confirm(t("Delete the view “{name}” for everybody?", { name }))) return;
    api.keep(topicOf(name), "", kept.tag ?? undefined).then(
      () => navigate(to.saved()),
      (error: Error) => setProblem(api.isConflict(error) ? t("Somebody has changed it meanwhile.") : error.message),
    );
  };
  const values = view.parts.filter(({ kind }) => kind === "value").map(({ topic }) => topic);
  const units = useMemo(() => new Units(fleet), []);
  const newest = useNewest(values, units);
  return (
    <>
      <header class="view-head">
        <h1>{view.title || name || t("New view")}</h1>
        <div class="tools">
          <button
            type="button"
            aria-pressed={isEdited}
            onClick={() => setParams({ edit: isEdited ? null : "1" }, false)}
          >
            {t("Edit")}
          </button>
          <button type="button" onClick={() => setSharing(true)} disabled={view.parts.length === 0}>
            {t("Share")}
          </button>
          {mayKeep && kept.tag !== null && (
            <button type="button" class="danger" onClick={remove}>
              {t("Delete")}
            </button>
          )}
          <a href={to.saved()}>{t("All views")}</a>
        </div>
      </header>
      {isChanged && !isEdited && <p class="soft note">{t("Not kept yet: this is how the address has it.")}</p>}
      {problem !== null && (
        <p class="problem" role="status">
          {problem}
        </p>
      )}
      {isEdited && <EditView name={name} view={view} kept={kept} onChange={change} topicOf={topicOf} />}
      {view.parts.length === 0 && !isEdited && (
        <Empty title={t("Nothing is on this view yet")}>
          <p>
            <em>{t("Edit")}</em> {t("puts charts and values on it.")}
          </p>
        </Empty>
      )}
      <div class="saved-parts">
        {view.parts.map((part, index) => (
          <section
            key={`${part.kind} ${part.topic} ${part.fields.join(" ")}`}
            class={`saved-part ${part.kind === "picture" ? "picture-part" : part.kind}`}
            aria-label={`${index + 1}: ${[part.title || part.topic, ...part.fields].join(" ")}`}
          >
            <h2 title={part.topic}>
              <a href={to.live(part.topic, linkQuery(part))}>{part.title || part.topic}</a>
            </h2>
            <PartBody part={part} view={view} newest={newest.get(part.topic)} units={units} />
            {isEdited && (
              <div class="part-acts">
                <button
                  type="button"
                  disabled={index === 0}
                  onClick={() => change({ ...view, parts: moved(view.parts, index) })}
                >
                  {t("Up")}
                </button>
                <button
                  type="button"
                  onClick={() => change({ ...view, parts: view.parts.filter((_, at) => at !== index) })}
                >
                  {t("Remove")}
                </button>
              </div>
            )}
          </section>
        ))}
      </div>
      {isSharing && <ShareDialog view={view} onClose={() => setSharing(false)} />}
    </>
  );
}

/** With the part at `index` before its neighbour. */
function moved(parts: readonly Part[], index: number): Part[] {
  const next = [...parts];
  const [part] = next.splice(index, 1);
  if (part) next.splice(index - 1, 0, part);
  return next;
}

const linkQuery = ({ fields }: Part): string => {
  const query = new URLSearchParams(fields.map((field) => ["field", field])).toString();
  return query === "" ? "" : `?${query}`;
};

interface BodyProps {
  part: Part;
  view: SavedView;
  newest: Newest | undefined;
  units: Units;
}

function PartBody({ part, view, newest, units }: BodyProps) {
  const marked = useMemo(() => ({ fields: part.fields, marks: view.marks }), [part.fields.join("\n"), view.marks]);
  switch (part.kind) {
    case "chart":
      // no field at all: what the chart would show first
      return <ChartsOf filter={part.topic} since={view.since} part={marked} />;
    case "picture":
      return (
        <Tile topic={part.topic} label={part.title || t("Newest picture of {topic}", { topic: part.topic })} large />
      );
    default:
      return <Value part={part} newest={newest} units={units} />;
  }
}

interface Newest {
  payload: unknown;
  encoding: string | undefined;
  time: number;
}

/** The newest message of each topic. */
function useNewest(topics: readonly string[], units: Units): ReadonlyMap<string, Newest> {
  const newest = useMemo(() => new Map<string, Newest>(), []);
  const key = [...new Set(topics)].sort().join("\n");
  const isKnown = identity.value !== undefined;
  useEffect(() => {
    if (key === "" || !isKnown) return undefined;
    const shown = key.split("\n");
    // with the units of sensors, as far as they may be read
    const meta = shown.flatMap((topic) => metaFilter(topic) ?? []).filter((filter) => maySubscribe(filter));
    const feed = openFeed({
      topics: [...new Set([...shown, ...meta])],
      since: "last",
      maxHz: 2,
      onMessage: ({ topic, payload, encoding, time }) => {
        if (!units.note(topic, payload) || shown.includes(topic)) newest.set(topic, { payload, encoding, time });
      },
    });
    return () => feed.close();
  }, [key, isKnown]);
  return newest;
}

/** A value as large as it is wanted, with its unit and its age. */
function Value({ part, newest, units }: Omit<BodyProps, "view">) {
  if (!newest) return <p class="soft">{t("Nothing came yet.")}</p>;
  const { payload, encoding, time } = newest;
  const path = part.fields[0] ?? (encoding === undefined ? firstNumber(payload) : null) ?? "";
  const steps = path === "" ? [] : (parsePath(path) ?? []);
  const place = { topic: part.topic, path, steps, scale: 1, offset: 0, metric: null, label: "" };
  const found = steps.reduce<unknown>(
    (value, step) =>
      value !== null && typeof value === "object" ? (value as Record<string, unknown>)[step] : undefined,
    payload,
  );
  const number = encoding === undefined && typeof found !== "string" ? readingAt(place, payload) : null;
  const text =
    number !== null && typeof found === "number" ? formatNumber(number) : summary(found ?? "", encoding, 120);
  const age = formatAge(viewNow() - time);
  return (
    <>
      <p class={`reading-now num${text.length > 12 ? " long" : ""}`}>
        {text} <span class="unit">{units.of(path, [part.topic])}</span>
      </p>
      <p class="soft num">
        {path !== "" && `${fieldLabel(path)}, `}
        {age === "now" ? t("now") : t("{age} ago", { age })}
      </p>
    </>
  );
}

/** Topics: what is on this broker, how much of it, and what was said last. */

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { listTopics } from "../api.ts";
import { counted, formatAge, formatCount, formatElapsed, formatPerMinute, formatRate } from "../core/format.ts";
import { hasPicture } from "../core/images.ts";
import { excerpt, wordsOf } from "../core/search.ts";
import { payloadText, type TopicNode, TopicTree } from "../core/tree.ts";
import { summary } from "../core/values.ts";
import { t } from "../core/words.ts";
import { fleet, holdDevices } from "../fleet.ts";
import { identity, maySubscribe, readable } from "../identity.ts";
import { Empty, Explain } from "../parts/bits.tsx";
import { Cut, Marked } from "../parts/cut.tsx";
import { Chevron, SearchIcon } from "../parts/icons.tsx";
import { Tile } from "../parts/picture.tsx";
import { useTicker } from "../parts/ticker.ts";
import { Rows, rowStyle, useVisibleRows, useWide } from "../parts/virtual.tsx";
import { navigate, route, setParams, to } from "../router.ts";
import { gatewayNow, isLive, openFeed, token, viewNow } from "../session.ts";
import { Details } from "./details.tsx";

/** The tree stays for as long as the page: coming back shows what was known, and counts go on. */
let tree = new TopicTree();
let system = false;
/** Whose tree it is. */
let visitor: string | null = null;
/** How much of the list has come; null while none is on its way. */
let reading: number | null = null;

const SYSTEM = "$SYS/#";

/** A list that takes longer keeps nobody from the tree. */
const PATIENCE_MS = 20_000;

/** Takes in the gateway's list of topics with their counts: names first, so that rows are in their places at once. */
async function takeList(whose: TopicTree, filters: readonly string[], position: string, signal: AbortSignal) {
  const timer = setTimeout(() => whose.settle(null), PATIENCE_MS);
  reading = 0;
  try {
    for (const filter of filters)
      for await (const page of listTopics(filter, signal, position)) {
        whose.list(page);
        reading += page.length;
      }
    whose.settle(gatewayNow());
  } catch {
    // then counts are of what comes here
    if (!signal.aborted) whose.settle(null);
  } finally {
    clearTimeout(timer);
    if (!signal.aborted) reading = null;
  }
}

/** @returns how to end it. */
function watch(withSystem: boolean): () => void {
  if (withSystem !== system || visitor !== token.value) {
    tree = new TopicTree();
    system = withSystem;
    visitor = token.value;
  }
  const mine = tree;
  const filters = withSystem ? [...readable(), SYSTEM] : readable();
  let listing = new AbortController();
  const feed = openFeed({
    topics: filters,
    since: "last",
    // The newest value of a topic twice a second is all that eyes can use; `skipped` keeps the counts right.
    maxHz: 2,
    onSubscribed: (position) => {
      listing.abort();
      listing = new AbortController();
      mine.begin(position);
      void takeList(mine, filters, position, listing.signal);
    },
    onMessage: (message, replayed) => mine.note(message, replayed),
  });
  return () => {
    listing.abort();
    feed.close();
  };
}

const NO_WORDS: readonly string[] = [];
const NO_ROWS: readonly TopicNode[] = [];

/** How long rows of a search are shown before they are looked for again, in milliseconds, and in times of the work. */
const SEARCH_EVERY = { milliseconds: 500, work: 20 };

/** What rows are made of: they are worked out again when that has changed. */
interface Made {
  key: string;
  at: number;
  /** How long that took, in milliseconds. */
  work: number;
  rows: TopicNode[];
}

export function Topics() {
  useTicker(4);
  const params = route.value.params;
  const query = params.get("q") ?? "";
  const withSystem = params.has("system");
  const wide = useWide(820);
  const roomy = useWide(1180);
  const rowHeight = wide ? 28 : 46;
  const scroller = useRef<HTMLDivElement>(null);
  const list = useRef<HTMLDivElement>(null);
  const [selected, setSelected] = useState<string | null>(params.get("at"));
  // In the address, so that a link opens what its sender chose; browsers allow few changes of it a second.
  useEffect(() => {
    if (selected === params.get("at")) return undefined;
    const timer = setTimeout(() => setParams({ at: selected }), 250);
    return () => clearTimeout(timer);
  }, [selected]);
  const made = useRef<Made>({ key: "", at: 0, work: 0, rows: [] });
  const touched = useRef(false);
  /** A path that is to be in view as soon as its row is there. */
  const wanted = useRef(selected);

  const known = identity.value !== undefined;
  useLayoutEffect(() => {
    if (!known) return undefined;
    const end = watch(withSystem);
    const letGo = holdDevices();
    return () => {
      letGo();
      end();
    };
  }, [withSystem, known]);

  // The way to it is opened once, as soon as it is there; who closes it again means that.
  const revealed = useRef(false);
  if (!revealed.current && selected !== null && tree.isWhole && tree.reveal(selected)) {
    revealed.current = true;
    touched.current = true;
  } else if (selected === null) revealed.current = true;

  // Rows change when topics come or branches open. At thousands of new topics a second, twice a second is enough.
  const flat = query.trim() !== "";
  const version = `${tree.version} ${query} ${withSystem}`;
  const moment = Date.now();
  const age = moment - made.current.at;
  const urgent = !made.current.key.endsWith(` ${query} ${withSystem}`) || touched.current || tree.size < 2000;
  // values change without a word: what a search finds among them is looked at again and again
  const isOld = flat && age > Math.max(SEARCH_EVERY.milliseconds, SEARCH_EVERY.work * made.current.work);
  if (made.current.key !== version ? urgent || age > 500 : isOld) {
    const began = performance.now();
    const found = flat ? tree.search(query) : tree.rows();
    made.current = { key: version, at: moment, work: performance.now() - began, rows: found };
    touched.current = false;
  }
  // none before their box is there: what is visible of them is measured when their number changes
  const rows = tree.isWhole ? made.current.rows : NO_ROWS;
  const words = flat ? wordsOf(query) : NO_WORDS;
  const range = useVisibleRows(list, rows.length, rowHeight, scroller);
  const now = viewNow();
  const selectedIndex = selected === null ? -1 : rows.findIndex((row) => row.path === selected);

  const show = (index: number) => {
    const box = scroller.current;
    if (!box) return;
    const at = index * rowHeight;
    const head = list.current ? list.current.offsetTop : 0;
    if (at < box.scrollTop) box.scrollTop = at;
    else if (at + rowHeight + head > box.scrollTop + box.clientHeight) {
      box.scrollTop = at + rowHeight + head - box.clientHeight;
    }
  };
  useLayoutEffect(() => {
    if (wanted.current === null || wanted.current !== selected || selectedIndex < 0) return;
    wanted.current = null;
    show(selectedIndex);
  });
  const select = (index: number) => {
    const at = Math.max(0, Math.min(rows.length - 1, index));
    const row = rows[at];
    if (!row) return;
    setSelected(row.path);
    show(at);
  };
  const toggle = (node: TopicNode, open = !node.open) => {
    touched.current = true;
    tree.setOpen(node, open);
    setSelected(node.path);
  };
  /** A click chooses, and opens what can be opened; on what is chosen already it closes that again. */
  const press = (node: TopicNode) => {
    if (node.children && !flat) toggle(node, node.path === selected ? !node.open : true);
    else setSelected(node.path);
    // what is chosen may be under what then is shown of it
    wanted.current = node.path;
  };
  /** Goes to a topic or level, out of a search that doesn't have it. */
  const go = (path: string) => {
    tree.reveal(path);
    touched.current = true;
    if (flat && !rows.some((row) => row.path === path)) setParams({ q: null });
    setSelected(path);
    wanted.current = path;
  };
  const open = (node: TopicNode) => navigate(to.live(node.isTopic ? node.path : `${node.path}/#`));

  const onKey = (event: KeyboardEvent) => {
    const current = rows[selectedIndex];
    const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 300) / rowHeight) - 2);
    const move: Record<string, number> = {
      ArrowDown: selectedIndex + 1,
      ArrowUp: selectedIndex - 1,
      PageDown: selectedIndex + page,
      PageUp: selectedIndex - page,
      Home: 0,
      End: rows.length - 1,
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = move[event.key];
    if (target !== undefined) {
      select(target);
    } else if (event.key === "ArrowRight" && current && !flat) {
      if (current.children && !current.open) toggle(current, true);
      else if (current.children) select(selectedIndex + 1);
    } else if (event.key === "ArrowLeft" && current && !flat) {
      if (current.open) toggle(current, false);
      else if (current.parent?.parent) select(rows.indexOf(current.parent));
    } else if ((event.key === "Enter" || event.key === " ") && current) {
      if (event.key === " " && current.children && !flat) toggle(current);
      else open(current);
    } else if (event.key.length === 1 && /\S/.test(event.key) && event.key !== "/" && current) {
      const letter = event.key.toLowerCase();
      const next = [...rows.slice(selectedIndex + 1), ...rows.slice(0, selectedIndex + 1)].find(
        (row) => row.name.toLowerCase().startsWith(letter) && row.depth === current.depth,
      );
      if (!next) return;
      select(rows.indexOf(next));
    } else return;
    event.preventDefault();
  };

  const chosen = rows[selectedIndex] ?? (selected === null ? undefined : tree.find(selected));
  const activeVisible = selectedIndex >= range[0] && selectedIndex < range[1];
  return (
    <div class="topics-view">
      <header class="view-head">
        <h1>{t("Topics")}</h1>
        <p class="figures" aria-live="off">
          <b>{counted(tree.size, "topic")}</b>{" "}
          <b class="rate">{isLive.value ? formatRate(tree.root.perSecond(now)) : "–"}</b>
        </p>
        <div class="tools">
          <label class="search">
            <SearchIcon />
            <span class="sr">{t("Search topics")}</span>
            <input
              type="search"
              placeholder={t("Name, value")}
              data-search
              value={query}
              onInput={(event) => setParams({ q: event.currentTarget.value })}
              onKeyDown={(event) => {
                if (event.key !== "ArrowDown") return;
                event.preventDefault();
                scroller.current?.focus();
                if (selectedIndex < 0) select(0);
              }}
            />
          </label>
          {maySubscribe(SYSTEM) && (
            <label class="check">
              <input
                type="checkbox"
                checked={withSystem}
                onChange={(event) => setParams({ system: event.currentTarget.checked ? "1" : null })}
              />
              {t("Broker’s own ($SYS)")}
            </label>
          )}
        </div>
      </header>
      {withSystem && tree.isWhole && tree.size > 0 && !tree.root.children?.has("$SYS") && (
        <p class="late soft note" role="status">
          {t("Nothing of $SYS came: the gateway takes what")} <code>GATEWAY_MQTT_TOPICS</code>{" "}
          {t("names, and “#” leaves the broker’s own topics out.")} <code>GATEWAY_MQTT_TOPICS='["#", "$SYS/#"]'</code>{" "}
          {t("adds them.")}
        </p>
      )}
      {!tree.isWhole ? (
        <p class="late soft" role="status">
          {reading
            ? t("Reading the topics: {reading} so far…", { reading: formatCount(reading) })
            : t("Waiting for the topics…")}
        </p>
      ) : tree.size === 0 ? (
        <Empty title={t("Nothing was published yet")}>
          <p>{t("Topics show up here as soon as the broker passes something on.")}</p>
          <Explain filter={readable()[0] ?? "#"} />
        </Empty>
      ) : (
        <div class={`split${roomy ? " roomy" : ""}`}>
          <div class="tree-box">
            <div class="tree-head" aria-hidden="true">
              <span class="t-name">{flat ? counted(rows.length, "topic matches", "topics match") : t("Topic")}</span>
              <span class="t-value">{t("Last value")}</span>
              <span class="t-count">{t("Messages")}</span>
              <span class="t-rate">{t("A minute")}</span>
              <span class="t-age">{t("Age")}</span>
            </div>
            {flat && rows.length === 0 && (
              <p class="soft nothing">
                {t("No topic and no value holds “")}
                {query}”.
              </p>
            )}
            <div
              ref={scroller}
              class={`tree${wide ? "" : " tall"}`}
              role="tree"
              tabIndex={0}
              aria-label={t("Topics")}
              aria-activedescendant={activeVisible ? `row-${selectedIndex}` : undefined}
              onKeyDown={onKey}
              onFocus={(event) => {
                // who comes with the pointer chooses with it
                if (selectedIndex < 0 && event.currentTarget.matches(":focus-visible")) select(0);
              }}
            >
              <Rows list={list} count={rows.length} rowHeight={rowHeight} range={range} role="presentation">
                {(index) => {
                  const node = rows[index];
                  return (
                    node && (
                      <TreeRow
                        key={node.path}
                        node={node}
                        index={index}
                        rowHeight={rowHeight}
                        flat={flat}
                        words={words}
                        now={now}
                        selected={index === selectedIndex}
                        onPress={() => press(node)}
                        onToggle={() => toggle(node)}
                      />
                    )
                  );
                }}
              </Rows>
            </div>
            <p class="hint soft">
              {tree.isCounted
                ? `${t("Counted since the gateway started.")} `
                : `${t("Counted since this page opened.")} `}
              <kbd>↑</kbd> <kbd>↓</kbd> {t("move,")} <kbd>→</kbd> <kbd>←</kbd> {t("open and close,")} <kbd>Enter</kbd>{" "}
              {t("shows it live,")} <kbd>/</kbd> {t("searches.")}
            </p>
          </div>
          {(roomy || chosen) && (
            <Details node={chosen} now={now} onGo={go} onClose={roomy ? null : () => setSelected(null)} />
          )}
        </div>
      )}
    </div>
  );
}

interface TreeRowProps {
  node: TopicNode;
  index: number;
  rowHeight: number;
  flat: boolean;
  /** What is searched for, in lower case. */
  words: readonly string[];
  now: number;
  selected: boolean;
  onPress: () => void;
  onToggle: () => void;
}

/** Characters of a value in its row, and in its tooltip. */
const VALUE = { row: 120, tooltip: 600 };

function TreeRow(props: TreeRowProps) {
  const { node, index, rowHeight, flat, words, now, selected, onPress, onToggle } = props;
  const branch = !flat && node.children !== null;
  const value = node.hasValue ? summary(node.payload, node.encoding, VALUE.row) : "";
  const found =
    words.length > 0 && node.searchText !== ""
      ? excerpt(payloadText(node.payload), `${node.path} ${value}`, words, VALUE.row)
      : null;
  const unit = node.hasValue && typeof node.payload === "number" ? fleet.unitAt([node.path], "") : "";
  const owner = node.isTopic ? fleet.nameOf(node.path) : null;
  const silent = node.isTopic && now - node.time > 30_000;
  const rate = flat ? node.ownPerSecond(now) : node.perSecond(now);
  return (
    // The tree has the focus and the keys (aria-activedescendant); the pointer works on the rows.
    <div
      id={`row-${index}`}
      class={`t-row${selected ? " selected" : ""}${node.isTopic ? "" : " level"}`}
      role="treeitem"
      aria-level={flat ? 1 : node.depth + 1}
      aria-selected={selected}
      aria-expanded={branch ? node.open : undefined}
      style={{ ...rowStyle(index, rowHeight), "--depth": flat ? "0" : String(node.depth) }}
      onClick={onPress}
    >
      <span class="t-name">
        {branch ? (
          <span
            class={`twist${node.open ? " open" : ""}`}
            onClick={(event) => {
              event.stopPropagation();
              onToggle();
            }}
          >
            <Chevron />
          </span>
        ) : (
          <span class="twist none" />
        )}
        {!flat && node.name === "" ? (
          <i class="soft">{t("(empty)")}</i>
        ) : (
          <Cut text={flat ? node.path : node.name} title={node.path} words={words} />
        )}
        {owner !== null && !node.path.includes(owner) && (
          <span class="owner" title={owner}>
            {owner}
          </span>
        )}
        {branch && (
          <span class="within" title={counted(node.topics, "topic")}>
            {formatCount(node.topics)}
          </span>
        )}
      </span>
      <code
        class={`t-value${silent ? " old" : ""}`}
        title={node.hasValue ? summary(node.payload, node.encoding, VALUE.tooltip) : undefined}
      >
        {hasPicture(node.payload, node.encoding) && <Tile topic={node.path} label="" href={null} />}
        <Marked text={found ?? value} words={words} />
        {unit !== "" && <span class="unit">{unit}</span>}
      </code>
      <span class="t-count num">{formatCount(flat ? node.own : node.count)}</span>
      <span class="t-rate num">
        {rate > 0 ? formatPerMinute(rate) : "–"}
        {rate > 0 && <span class="t-unit">/min</span>}
      </span>
      <span class="t-age num" title={node.isTopic ? new Date(node.time).toLocaleString() : undefined}>
        {node.isTopic && (
          <>
            <span class="t-clock">{formatElapsed(now - node.time)}</span>
            <span class="t-alone">{t(formatAge(now - node.time))}</span>
          </>
        )}
      </span>
    </div>
  );
}

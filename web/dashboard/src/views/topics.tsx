/** Topics: what is on this broker, how much of it, and what was said last. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { listTopics } from "../api.ts";
import { formatAge, formatCount, formatRate } from "../core/format.ts";
import { type TopicNode, TopicTree } from "../core/tree.ts";
import { summary } from "../core/values.ts";
import { fleet, holdDevices } from "../fleet.ts";
import { identity, maySubscribe, readable } from "../identity.ts";
import { TopicActs } from "../parts/acts.tsx";
import { Empty, Explain } from "../parts/bits.tsx";
import { Chevron, SearchIcon } from "../parts/icons.tsx";
import { PayloadView } from "../parts/payload.tsx";
import { Tile } from "../parts/picture.tsx";
import { useTicker } from "../parts/ticker.ts";
import { Rows, rowStyle, useVisibleRows, useWide } from "../parts/virtual.tsx";
import { navigate, route, setParams, to } from "../router.ts";
import { clockSkew, type Feed, isLive, link, openFeed, token, viewNow } from "../session.ts";

/** The tree stays for as long as the page: coming back shows what was known, and counts go on. */
let tree = new TopicTree();
let system = false;
let opened = 0;
/** Whose tree it is. */
let visitor: string | null = null;

const SYSTEM = "$SYS/#";

/** What was cleared before: its newest value is the empty one that cleared it. */
async function leaveOutCleared(whose: TopicTree): Promise<void> {
  try {
    for (const filter of readable())
      for await (const page of listTopics(filter))
        for (const { topic, cleared } of page) if (cleared) whose.clear(topic);
  } catch {
    // They are then listed with an empty value.
  }
}

function watch(withSystem: boolean): Feed {
  if (withSystem !== system || visitor !== token.value) {
    tree = new TopicTree();
    system = withSystem;
    visitor = token.value;
  }
  opened ||= Date.now();
  void leaveOutCleared(tree);
  return openFeed({
    topics: withSystem ? [...readable(), SYSTEM] : readable(),
    since: "last",
    // The newest value of a topic twice a second is all that eyes can use; `skipped` keeps the counts right.
    maxHz: 2,
    onSubscribed: (position) => tree.beginLife(position.split(":")[0]),
    onMessage: (message, replayed) => tree.note(message, replayed),
  });
}

/** What fits is opened by itself, level by level: a tree of three devices has nothing to hide. */
function openSmall(): void {
  const FITS = 60;
  let rows = tree.root.sorted().length;
  // A broker with one or two names at the top would show nothing: their levels are opened however many there are.
  const few = rows <= 3;
  let level = tree.root.sorted();
  while (level.length > 0) {
    const next: TopicNode[] = [];
    for (const node of level) {
      const below = node.children?.size ?? 0;
      if (below === 0 || (rows + below > FITS && !(few && node.depth === 0))) continue;
      rows += below;
      tree.setOpen(node, true);
      next.push(...node.sorted());
    }
    level = next;
  }
}

export function Topics() {
  const tick = useTicker(4);
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
  const autoOpened = useRef(tree.size > 0);
  const cache = useRef<{ key: string; at: number; rows: TopicNode[] }>({ key: "", at: 0, rows: [] });
  const touched = useRef(false);

  const known = identity.value !== undefined;
  useLayoutEffect(() => {
    if (!known) return undefined;
    const feed = watch(withSystem);
    const letGo = holdDevices();
    return () => {
      letGo();
      feed.close();
    };
  }, [withSystem, known]);

  // The way to it is opened once, as soon as it is there; who closes it again means that.
  const revealed = useRef(false);
  if (!revealed.current && selected !== null && tree.reveal(selected)) {
    revealed.current = true;
    touched.current = true;
  } else if (selected === null) revealed.current = true;

  if (!autoOpened.current && tree.size > 0 && Date.now() - opened > 300) {
    autoOpened.current = true;
    openSmall();
  }

  // Rows change when topics come or branches open. At thousands of new topics a second, twice a second is enough.
  const version = `${tree.version} ${query} ${withSystem}`;
  const moment = Date.now();
  const urgent = !cache.current.key.endsWith(` ${query} ${withSystem}`) || touched.current || tree.size < 2000;
  if (cache.current.key !== version && (urgent || moment - cache.current.at > 500)) {
    cache.current = { key: version, at: moment, rows: query.trim() === "" ? tree.rows() : tree.search(query) };
    touched.current = false;
  }
  const rows = cache.current.rows;
  const flat = query.trim() !== "";
  const range = useVisibleRows(list, rows.length, rowHeight, scroller);
  const now = viewNow();
  const selectedIndex = selected === null ? -1 : rows.findIndex((row) => row.path === selected);

  const select = (index: number) => {
    const row = rows[Math.max(0, Math.min(rows.length - 1, index))];
    if (!row) return;
    setSelected(row.path);
    const box = scroller.current;
    if (!box) return;
    const at = rows.indexOf(row) * rowHeight;
    const head = list.current ? list.current.offsetTop : 0;
    if (at < box.scrollTop) box.scrollTop = at;
    else if (at + rowHeight + head > box.scrollTop + box.clientHeight) {
      box.scrollTop = at + rowHeight + head - box.clientHeight;
    }
  };
  const toggle = (node: TopicNode, open = !node.open) => {
    touched.current = true;
    tree.setOpen(node, open);
    setSelected(node.path);
  };
  const open = (node: TopicNode) => navigate(to.live(node.hasValue ? node.path : `${node.path}/#`));

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

  const chosen = rows[selectedIndex] ?? (selected === null ? undefined : tree.get(selected));
  const activeVisible = selectedIndex >= range[0] && selectedIndex < range[1];
  return (
    <div class="topics-view">
      <header class="view-head">
        <h1>Topics</h1>
        <p class="figures" aria-live="off">
          <b>{formatCount(tree.size)}</b> topics{" "}
          <b class="rate">{isLive.value ? formatRate(tree.root.rate.read(now)) : "–"}</b>
        </p>
        <div class="tools">
          <label class="search">
            <SearchIcon />
            <span class="sr">Search topics</span>
            <input
              type="search"
              placeholder="Search"
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
              Broker’s own ($SYS)
            </label>
          )}
        </div>
      </header>
      {withSystem && tree.size > 0 && !tree.root.children?.has("$SYS") && (
        <p class="late soft note" role="status">
          Nothing of $SYS came: the gateway takes what <code>GATEWAY_MQTT_TOPICS</code> names, and “#” leaves the
          broker’s own topics out. <code>GATEWAY_MQTT_TOPICS='["#", "$SYS/#"]'</code> adds them.
        </p>
      )}
      {tree.size === 0 ? (
        <NoTopics tick={tick} />
      ) : (
        <div class={`split${roomy ? " roomy" : ""}`}>
          <div class="tree-box">
            <div class="tree-head" aria-hidden="true">
              <span class="t-name">
                {flat ? `${formatCount(rows.length)} ${rows.length === 1 ? "topic matches" : "topics match"}` : "Topic"}
              </span>
              <span class="t-value">Last value</span>
              <span class="t-count">Messages</span>
              <span class="t-rate">Rate</span>
              <span class="t-age">Age</span>
            </div>
            {flat && rows.length === 0 && <p class="soft nothing">No topic holds “{query}”.</p>}
            <div
              ref={scroller}
              class={`tree${wide ? "" : " tall"}`}
              role="tree"
              tabIndex={0}
              aria-label="Topics"
              aria-activedescendant={activeVisible ? `row-${selectedIndex}` : undefined}
              onKeyDown={onKey}
              onFocus={() => selectedIndex < 0 && rows.length > 0 && setSelected(rows[0]?.path ?? null)}
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
                        now={now}
                        selected={index === selectedIndex}
                        onSelect={() => setSelected(node.path)}
                        onToggle={() => toggle(node)}
                        onOpen={() => open(node)}
                      />
                    )
                  );
                }}
              </Rows>
            </div>
            <p class="hint soft">
              Counted since this page opened. <kbd>↑</kbd> <kbd>↓</kbd> move, <kbd>→</kbd> <kbd>←</kbd> open and close,{" "}
              <kbd>Enter</kbd> shows it live, <kbd>/</kbd> searches.
            </p>
          </div>
          {roomy && <Details node={chosen} now={now} />}
        </div>
      )}
    </div>
  );
}

function NoTopics({ tick }: { tick: number }) {
  const waiting = link.value.state !== "open" || (tick < 6 && clockSkew() === null);
  if (waiting) return <p class="late soft">Waiting for the first values…</p>;
  return (
    <Empty title="Nothing was published yet">
      <p>Topics show up here as soon as the broker passes something on.</p>
      <Explain filter={readable()[0] ?? "#"} />
    </Empty>
  );
}

interface TreeRowProps {
  node: TopicNode;
  index: number;
  rowHeight: number;
  flat: boolean;
  now: number;
  selected: boolean;
  onSelect: () => void;
  onToggle: () => void;
  onOpen: () => void;
}

function TreeRow({ node, index, rowHeight, flat, now, selected, onSelect, onToggle, onOpen }: TreeRowProps) {
  const branch = !flat && node.children !== null;
  const value = node.hasValue ? summary(node.payload, node.encoding, 120) : "";
  const unit = node.hasValue && typeof node.payload === "number" ? fleet.unitAt([node.path], "") : "";
  const owner = node.hasValue ? fleet.nameOf(node.path) : null;
  const silent = node.hasValue && now - node.time > 30_000;
  const rate = node.perSecond(now);
  return (
    // The tree has the focus and the keys (aria-activedescendant); the pointer works on the rows.
    <div
      id={`row-${index}`}
      class={`t-row${selected ? " selected" : ""}${node.hasValue ? "" : " level"}`}
      role="treeitem"
      aria-level={flat ? 1 : node.depth + 1}
      aria-selected={selected}
      aria-expanded={branch ? node.open : undefined}
      style={{ ...rowStyle(index, rowHeight), "--depth": flat ? "0" : String(node.depth) }}
      onClick={onSelect}
      onDblClick={onOpen}
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
        <a href={to.live(node.hasValue && (flat || !node.children) ? node.path : `${node.path}/#`)} tabIndex={-1}>
          {flat ? node.path : node.name === "" ? <i class="soft">(empty)</i> : node.name}
        </a>
        {owner !== null && !node.path.includes(owner) && <span class="owner">{owner}</span>}
        {branch && <span class="within">{formatCount(node.topics)}</span>}
      </span>
      <code class={`t-value${silent ? " old" : ""}`}>
        {value.endsWith(" picture)") && node.encoding !== undefined && <Tile topic={node.path} label="" href={null} />}
        {value}
        {unit !== "" && <span class="unit">{unit}</span>}
      </code>
      <span class="t-count num">{formatCount(flat ? node.own : node.count)}</span>
      <span class="t-rate num">{rate > 0.0001 ? formatRate(rate) : "–"}</span>
      <span class="t-age num">{node.hasValue ? formatAge(now - node.time) : ""}</span>
    </div>
  );
}

/** A payload to copy: text as it came, JSON in one line. */
const valueText = (payload: unknown): string => (typeof payload === "string" ? payload : JSON.stringify(payload));

function Details({ node, now }: { node: TopicNode | undefined; now: number }) {
  if (!node) {
    return (
      <aside class="details" aria-label="Selected topic">
        <p class="soft">Choose a topic to see what it said last.</p>
      </aside>
    );
  }
  const owners = fleet.ownersOf(node.path);
  const filter = node.children ? `${node.path}/#` : node.path;
  return (
    <aside class="details" aria-label="Selected topic">
      <h2 class="topic">{node.path}</h2>
      {owners.length > 0 && (
        <p class="owners">
          {owners.slice(0, 5).map((device) => (
            <a key={device.id} href={to.device(device.id)}>
              {device.title}
            </a>
          ))}
        </p>
      )}
      <p class="links">
        {node.hasValue && <a href={to.live(node.path)}>Show live</a>}
        {node.children && <a href={to.live(filter)}>Show all {formatCount(node.topics)} below</a>}
      </p>
      <TopicActs
        topic={node.path}
        below={node.children ? filter : null}
        isLevel={!node.hasValue}
        value={node.hasValue && node.encoding === undefined ? valueText(node.payload) : undefined}
      />
      {node.hasValue ? (
        <>
          <p class="soft num">
            {formatAge(now - node.time) === "now" ? "just now" : `${formatAge(now - node.time)} ago`}
            {node.retained ? ", retained" : ""}
          </p>
          <PayloadView payload={node.payload} encoding={node.encoding} previous={undefined} />
        </>
      ) : (
        <p class="soft">A level on the way; nothing is published to it itself.</p>
      )}
    </aside>
  );
}

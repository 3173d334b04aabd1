/** The list of messages, newest first, with the losses between them. */

import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { counted, formatDateTime, formatMoment, isToday } from "../../core/format.ts";
import { gapWords } from "../../core/losses.ts";
import type { LiveStore, Row, StoredMessage } from "../../core/store.ts";
import { oneLine, summary } from "../../core/values.ts";
import { t } from "../../core/words.ts";
import { Cut } from "../../parts/cut.tsx";
import { Rows, rowStyle, useVisibleRows, useWide } from "../../parts/virtual.tsx";

interface MessagesProps {
  store: LiveStore;
  /** The store's; it is changed in place, and what looks the same isn't drawn again. */
  version: number;
  downloads: ComponentChildren;
  wild: boolean;
  picked: StoredMessage | null;
  onPick: (message: StoredMessage) => void;
}

export function Messages({ store, downloads, wild, picked, onPick }: MessagesProps) {
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
        <h2 id="messages-title">{t("Messages")}</h2>
        <label class="search small">
          <span class="sr">{t("Search messages")}</span>
          <input
            type="search"
            placeholder={t("Search")}
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
        aria-label={t("Messages, newest first")}
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
                  title={gapWords(row.gap.reason)}
                >
                  {row.gap.lost === null ? t("Messages") : counted(row.gap.lost, "message")} {t("missing:")}{" "}
                  {gapWords(row.gap.reason)}
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
                {wild && (
                  <span class="m-topic">
                    <Cut text={message.topic} />
                  </span>
                )}
                <code class="m-payload" title={summary(message.payload, message.encoding, 600)}>
                  {summary(message.payload, message.encoding, 240)}
                </code>
                {message.isUnreadable && <span class="m-flag unreadable">{t("unreadable")}</span>}
                {message.retained && <span class="m-flag">{t("retained")}</span>}
                {message.skipped > 0 && (
                  <span
                    class="m-flag"
                    title={t("{skipped} left out before it", { skipped: counted(message.skipped, "older one") })}
                  >
                    +{message.skipped}
                  </span>
                )}
              </div>
            );
          }}
        </Rows>
      </div>
    </section>
  );
}

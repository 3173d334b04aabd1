/** A button for each topic: its colour, its name and its value, to take its line away or bring it back. */

import { useState } from "preact/hooks";
import { readingAt } from "../../core/columns.ts";
import { counted, formatCount, formatSteady } from "../../core/format.ts";
import { t } from "../../core/words.ts";
import { setParams } from "../../router.ts";
import { PALETTE } from "./chart.ts";
import type { PanelLine } from "./panel.tsx";

interface LegendProps {
  topics: readonly string[];
  labels: readonly string[];
  on: ReadonlySet<string>;
  /** The lines of the first field, those that are on. */
  lines: readonly PanelLine[];
  /** The newest reading of a topic whose line is off; null where there is none. */
  newest: (topic: string) => { value: number; decimals: number } | null;
  unit: string;
  hover: number | null;
}

export function Legend({ topics, labels, on, lines, newest, unit, hover }: LegendProps) {
  const [search, setSearch] = useState("");
  const MANY = 24;
  /** This line alone, or all of them again. */
  const only = (topic: string) => setParams({ show: on.size === 1 && on.has(topic) ? null : [topic] });
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
          <span class="sr">{t("Search series")}</span>
          <input
            type="search"
            placeholder={t("Search {length}", { length: counted(topics.length, "topic") })}
            value={search}
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
        </label>
      )}
      {shown.map(({ topic, index, label }) => {
        const drawn = lines.find((line) => line.topic === topic);
        const off = drawn ? null : newest(topic);
        const value = drawn ? (hover === null ? drawn.line.newest : readingAt(drawn.line, hover)?.value) : off?.value;
        const decimals = drawn?.decimals ?? off?.decimals ?? 0;
        const stats = drawn?.line.stats;
        return (
          <span key={topic} class="entry">
            <button
              type="button"
              class={`series-${(index % PALETTE) + 1}`}
              aria-pressed={on.has(topic)}
              title={topic}
              onClick={() => toggle(topic)}
              onDblClick={() => only(topic)}
            >
              <span class={`swatch${index >= PALETTE ? " dashed" : ""}`} aria-hidden="true" />
              <span class="series-name">{label}</span>
              <span class="num">
                {value === undefined || value === null ? "–" : formatSteady(value, decimals)}
                <span class="unit">{unit}</span>
              </span>
            </button>
            <button
              type="button"
              class="quiet only"
              aria-label={t("Only {label}", { label })}
              aria-pressed={on.size === 1 && on.has(topic)}
              onClick={() => only(topic)}
            >
              {t("only")}
            </button>
            {stats && (
              <span class="soft num stats" title={t("The least, the greatest and the mean in view")}>
                {formatSteady(stats.min, decimals)} {t("to")} {formatSteady(stats.max, decimals)}
                {t(", mean")} {formatSteady(stats.mean, decimals + 1)}
              </span>
            )}
          </span>
        );
      })}
      {entries.length > shown.length && (
        <span class="soft">
          {t("and")} {formatCount(entries.length - shown.length)} {t("more")}
        </span>
      )}
    </div>
  );
}

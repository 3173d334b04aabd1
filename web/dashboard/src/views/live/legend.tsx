/** A button for each topic: its colour, its name and its value, to take its line away or bring it back. */
import { useState } from "preact/hooks";
import { formatCount, formatSteady } from "../../core/format.ts";
import { LiveStore } from "../../core/store.ts";
import type { Field } from "../../core/values.ts";
import { setParams } from "../../router.ts";
import { PALETTE } from "./chart.ts";

interface LegendProps {
  topics: readonly string[];
  labels: readonly string[];
  on: ReadonlySet<string>;
  store: LiveStore;
  field: Field;
  unit: string;
  at: number;
}

export function Legend({ topics, labels, on, store, field, unit, at }: LegendProps) {
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

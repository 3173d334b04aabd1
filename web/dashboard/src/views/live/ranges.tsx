/** How far back: a range up to now, or one of one's own. */

import { useState } from "preact/hooks";
import { fromLocal, toLocal } from "../../core/format.ts";
import type { TimeWindow } from "../../core/window.ts";
import { t } from "../../core/words.ts";
import { useWide } from "../../parts/virtual.tsx";
import { setParams } from "../../router.ts";

export const DEFAULT_RANGE = "15m";

const RANGES: readonly (readonly [since: string, label: string])[] = [
  ["1m", t("Live")],
  ["15m", "15 min"],
  ["1h", "1 h"],
  ["6h", "6 h"],
  ["24h", "24 h"],
  ["7d", "7 d"],
  ["30d", "30 d"],
  ["365d", t("1 year")],
];

/** What a range is called, as an address has it. */
export function rangeLabel(since: string): string {
  return RANGES.find(([range]) => range === since)?.[1] ?? since;
}

const choose = (since: string) =>
  setParams({ since: since === DEFAULT_RANGE ? null : since, from: null, to: null }, false);

interface RangesProps {
  since: string;
  /** What is shown. */
  window: TimeWindow;
  /** Whether it is a window of one's own. */
  zoomed: boolean;
  onOwn: (window: TimeWindow) => void;
}

export function Ranges({ since, window, zoomed, onOwn }: RangesProps) {
  const wide = useWide(820);
  const [own, setOwn] = useState(false);
  const known = RANGES.some(([range]) => range === since);
  const all = known ? RANGES : [...RANGES, [since, since] as const];
  return (
    <>
      {wide ? (
        <fieldset class="segments ranges">
          <legend class="sr">{t("How far back")}</legend>
          {all.map(([range, label]) => (
            <button key={range} type="button" aria-pressed={since === range && !zoomed} onClick={() => choose(range)}>
              {label}
            </button>
          ))}
          <button type="button" aria-expanded={own} aria-pressed={zoomed} onClick={() => setOwn(!own)}>
            {t("From – to")}
          </button>
        </fieldset>
      ) : (
        <select
          class="ranges"
          aria-label={t("How far back")}
          value={zoomed || own ? "own" : since}
          onChange={(event) => {
            const { value } = event.currentTarget;
            setOwn(value === "own");
            if (value !== "own") choose(value);
          }}
        >
          {all.map(([range, label]) => (
            <option key={range} value={range}>
              {label}
            </option>
          ))}
          <option value="own">{t("From – to")}</option>
        </select>
      )}
      {own && (
        <OwnRange
          window={window}
          onOwn={(chosen) => {
            setOwn(false);
            onOwn(chosen);
          }}
        />
      )}
    </>
  );
}

function OwnRange({ window, onOwn }: { window: TimeWindow; onOwn: (window: TimeWindow) => void }) {
  const [from, setFrom] = useState(toLocal(window.from));
  const [to, setTo] = useState(toLocal(window.to));
  const [begins, ends] = [fromLocal(from), fromLocal(to)];
  const usable = begins !== null && ends !== null && begins < ends;
  return (
    <form
      class="row own-range"
      onSubmit={(event) => {
        event.preventDefault();
        if (usable) onOwn({ from: begins, to: ends });
      }}
    >
      <label class="select">
        <span>{t("From")}</span>
        <input type="datetime-local" step="1" value={from} onInput={(event) => setFrom(event.currentTarget.value)} />
      </label>
      <label class="select">
        <span>{t("to")}</span>
        <input type="datetime-local" step="1" value={to} onInput={(event) => setTo(event.currentTarget.value)} />
      </label>
      <button type="submit" disabled={!usable}>
        {t("Show")}
      </button>
      {begins !== null && ends !== null && begins >= ends && (
        <span class="problem">{t("It ends before it begins.")}</span>
      )}
    </form>
  );
}

/** What is on its way to the chart, what didn't come, and what isn't there. */

import { formatMoment } from "../../core/format.ts";
import { gapWords } from "../../core/losses.ts";
import type { TimeWindow } from "../../core/window.ts";
import { t } from "../../core/words.ts";
import type { Past } from "./past.ts";

interface ProgressProps {
  past: Past;
  zoomed: boolean;
  /** The range that was chosen, in milliseconds. */
  span: number;
  window: TimeWindow;
  now: number;
  /** Whether all that there is of the window is here. */
  isKnown: boolean;
  /** Whether that is nothing. */
  isEmpty: boolean;
  /** When the first reading was; null where none is, or it isn't known yet. */
  oldest: number | null;
}

/** A shorter range that isn't full is one that has just begun. */
const LONG_MS = 60 * 60_000;
/** What comes quicker needs no word. */
const QUIET_MS = 400;

export function Progress({ past, zoomed, span, window, now, isKnown, isEmpty, oldest }: ProgressProps) {
  const seconds = past.loadingSince === null ? 0 : (performance.now() - past.loadingSince) / 1000;
  if (past.problem !== null) {
    return (
      <p class="problem note" role="status">
        {t("What is older couldn’t be loaded:")} {past.problem}{" "}
        <button type="button" onClick={past.retry}>
          {t("Try again")}
        </button>
      </p>
    );
  }
  if (past.loadingSince !== null) {
    return (
      <p class="soft note loading" role="status" hidden={seconds * 1000 < QUIET_MS}>
        <progress aria-label={t("Loading")} /> {t("Loading what is older…")}
        {seconds >= 3 && ` ${Math.floor(seconds)} s`}
      </p>
    );
  }
  if (!isKnown) return null;
  const from = zoomed ? window.from : now - span;
  const gap = past.piece?.gap ?? null;
  const isOpen = past.piece?.question.isOpen ?? true;
  const isShort =
    (gap !== null || (isOpen && (zoomed || span >= LONG_MS))) &&
    (oldest === null || oldest > from + (window.to - from) / 50);
  if (isEmpty)
    return (
      <p class="soft note" role="status">
        {gap === null ? t("Nothing came in this time.") : t("Nothing of this time is kept.")}
      </p>
    );
  if (isShort && oldest !== null)
    return (
      <p class="soft note" role="status">
        {t("Nothing from before")} {formatMoment(oldest)} {t("is kept.")}
      </p>
    );
  if (gap === null) return null;
  return (
    <p class="soft note" role="status">
      {t("Part of this time is missing:")} {gapWords(gap)}.
    </p>
  );
}

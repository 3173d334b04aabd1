/** What is missing here, and why. */

import { formatCount } from "../../core/format.ts";
import { gapWords } from "../../core/losses.ts";
import type { LiveStore } from "../../core/store.ts";
import { t } from "../../core/words.ts";

interface LossesProps {
  store: LiveStore;
  recovered: boolean | undefined;
  /** Messages that a list of them lacks. */
  skipped: number;
  /** How many messages a second of each topic are asked for; Infinity: all. */
  hz: number;
  /** The store's; it is changed in place, and what looks the same isn't drawn again. */
  version: number;
}

export function Losses({ store, recovered, skipped, hz }: LossesProps) {
  if (store.losses.length === 0 && skipped === 0 && recovered !== false) return null;
  return (
    <p class="losses" role="status">
      {store.losses.map(({ reason, lost }) => (
        <span key={reason} title={gapWords(reason)}>
          <b>{lost === null ? t("Some") : formatCount(lost)}</b> {t("missing:")} {gapWords(reason)}.{" "}
        </span>
      ))}
      {skipped > 0 && (
        <span>
          <b>{formatCount(skipped)}</b> {t("left out")}
          {Number.isFinite(hz)
            ? t(": of each topic at most {hz} a second come, as many as a chart draws.", { hz })
            : ` ${t("while more came than a chart draws, or this tab was hidden.")}`}
        </span>
      )}
      {recovered === false && store.losses.length === 0 && <span>{t("History doesn’t reach back so far.")}</span>}
    </p>
  );
}

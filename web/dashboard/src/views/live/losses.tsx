/** What is missing here, and why. */
import { formatCount } from "../../core/format.ts";
import { gapWords } from "../../core/losses.ts";
import type { LiveStore } from "../../core/store.ts";

interface LossesProps {
  store: LiveStore;
  recovered: boolean | undefined;
  /** The store's; it is changed in place, and what looks the same isn't drawn again. */
  version: number;
}

export function Losses({ store, recovered }: LossesProps) {
  if (store.losses.length === 0 && store.skipped === 0 && recovered !== false) return null;
  return (
    <p class="losses" role="status">
      {store.losses.map(({ reason, lost }) => (
        <span key={reason} title={gapWords(reason)}>
          <b>{lost === null ? "Some" : formatCount(lost)}</b> missing: {gapWords(reason)}.{" "}
        </span>
      ))}
      {store.skipped > 0 && (
        <span>
          <b>{formatCount(store.skipped)}</b> left out while this tab was hidden.
        </span>
      )}
      {recovered === false && store.losses.length === 0 && <span>History doesn’t reach back so far.</span>}
    </p>
  );
}

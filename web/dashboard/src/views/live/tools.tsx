/** How far back, how near, stop and go on, and how much there is. */
import { formatCount, formatRate } from "../../core/format.ts";
import type { LiveStore } from "../../core/store.ts";
import { PauseIcon, PlayIcon } from "../../parts/icons.tsx";
import { setParams } from "../../router.ts";
import { gatewayNow, isLive } from "../../session.ts";
import type { Moves } from "./charts.tsx";
import type { Heard } from "./watch.ts";

const RANGES = ["1m", "5m", "15m", "1h", "6h", "24h"];
export const DEFAULT_RANGE = "15m";

interface ToolsProps {
  since: string;
  zoomed: boolean;
  /** How many messages had come when the picture was stopped; null while it moves. */
  pausedAt: number | null;
  heard: Heard;
  store: LiveStore;
  /** How many topics have a line. */
  lines: number;
  moves: Moves;
}

export function Tools({ since, zoomed, pausedAt, heard, store, lines, moves }: ToolsProps) {
  const paused = pausedAt !== null;
  return (
    <div class="live-tools">
      <fieldset class="segments">
        <legend class="sr">How far back</legend>
        {(RANGES.includes(since) ? RANGES : [...RANGES, since]).map((range) => (
          <button
            key={range}
            type="button"
            aria-pressed={since === range}
            onClick={() => setParams({ since: range === DEFAULT_RANGE ? null : range, from: null, to: null })}
          >
            {range}
          </button>
        ))}
      </fieldset>
      <span class="segments zoom">
        <button type="button" aria-label="Zoom out" onClick={() => moves.scale(2)}>
          −
        </button>
        <button type="button" aria-label="Zoom in" onClick={() => moves.scale(0.5)}>
          +
        </button>
        {zoomed && (
          <button type="button" aria-pressed="true" onClick={moves.reset}>
            Back to live
          </button>
        )}
      </span>
      <button type="button" class={`pause${paused ? " on" : ""}`} aria-pressed={paused} onClick={moves.togglePause}>
        {paused ? <PlayIcon /> : <PauseIcon />}
        <span class="pause-word">{paused ? "Resume" : "Pause"}</span>
      </button>
      <span class="figures num" aria-live="off">
        {paused ? (
          <b>{formatCount(heard.store.received - pausedAt)} came meanwhile</b>
        ) : (
          <>
            <b class="rate">{isLive.value ? formatRate(heard.rate.read(gatewayNow())) : "–"}</b>{" "}
            {formatCount(store.received)} here
            {lines > 1 && `, ${formatCount(store.topics.size)}${store.uncounted > 0 ? "+" : ""} topics`}
          </>
        )}
      </span>
    </div>
  );
}

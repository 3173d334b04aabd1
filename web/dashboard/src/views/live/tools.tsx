/** How far back, how near, stop and go on, and how much there is. */

import { counted, formatCount, formatRate } from "../../core/format.ts";
import type { LiveStore } from "../../core/store.ts";
import type { TimeWindow } from "../../core/window.ts";
import { t } from "../../core/words.ts";
import { PauseIcon, PlayIcon } from "../../parts/icons.tsx";
import { gatewayNow, isLive } from "../../session.ts";
import type { Moves } from "./charts.tsx";
import { Ranges } from "./ranges.tsx";
import type { Heard } from "./watch.ts";

interface ToolsProps {
  since: string;
  window: TimeWindow;
  zoomed: boolean;
  /** How many messages had come when the picture was stopped; null while it moves. */
  pausedAt: number | null;
  heard: Heard;
  store: LiveStore;
  /** How many topics have a line. */
  lines: number;
  moves: Moves;
  /** What has one. */
  kind: "topic" | "device";
}

export function Tools({ since, window, zoomed, pausedAt, heard, store, lines, moves, kind }: ToolsProps) {
  const paused = pausedAt !== null;
  return (
    <div class="live-tools">
      <Ranges since={since} window={window} zoomed={zoomed} onOwn={moves.zoom} />
      <span class="segments zoom">
        <button type="button" aria-label={t("Zoom out")} onClick={() => moves.scale(2)}>
          −
        </button>
        <button type="button" aria-label={t("Zoom in")} onClick={() => moves.scale(0.5)}>
          +
        </button>
        {zoomed && (
          <button type="button" aria-pressed="true" onClick={moves.reset}>
            {t("Back to live")}
          </button>
        )}
      </span>
      <button type="button" class={`pause${paused ? " on" : ""}`} aria-pressed={paused} onClick={moves.togglePause}>
        {paused ? <PlayIcon /> : <PauseIcon />}
        <span class="pause-word">{paused ? t("Resume") : t("Pause")}</span>
      </button>
      <span class="figures num" aria-live="off">
        {paused ? (
          <b>
            {formatCount(heard.store.arrived - pausedAt)} {t("came meanwhile")}
          </b>
        ) : (
          <>
            <b class="rate">{isLive.value ? formatRate(heard.rate.read(gatewayNow())) : "–"}</b>{" "}
            {formatCount(store.received)} {t("here")}
            {lines > 1 &&
              `, ${store.uncounted > 0 ? `${t("more than")} ` : ""}${kind === "device" ? counted(store.topics.size, "device") : counted(store.topics.size, "topic")}`}
          </>
        )}
      </span>
    </div>
  );
}

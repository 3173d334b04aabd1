/** Texts over time, below the charts and as wide: what a device was doing, from when to when. */

import { formatMoment } from "../../core/format.ts";
import type { States } from "../../core/states.ts";
import { fieldLabel } from "../../core/values.ts";
import type { TimeWindow } from "../../core/window.ts";
import { t } from "../../core/words.ts";
import { PALETTE } from "./chart.ts";

interface LanesProps {
  states: readonly States[];
  /** What to call the topic of each. */
  labels: readonly string[];
  window: TimeWindow;
  now: number;
  hover: number | null;
}

/** Lanes that are drawn; more are named in the list of messages. */
export const MAX_LANES = 12;

export function Lanes({ states, labels, window, now, hover }: LanesProps) {
  const { from, to } = window;
  const part = (time: number) => `${(((time - from) / (to - from)) * 100).toFixed(3)}%`;
  const colours = new Map<string, number>();
  const several = new Set(states.map(({ topic }) => topic)).size > 1;
  return (
    <div class="lanes">
      {states.slice(0, MAX_LANES).map((each, index) => {
        const stretches = each.between(from, to);
        const field = each.field === "" ? "" : fieldLabel(each.field);
        const name = [several || field === "" ? labels[index] : "", field].filter(Boolean).join(" · ");
        return (
          <figure key={`${each.field} ${each.topic}`} class="lane">
            <figcaption>
              <span class="panel-title">{name}</span>
              <b>{each.at(hover ?? to) ?? "–"}</b>
            </figcaption>
            <div
              class="lane-plot"
              role="img"
              aria-label={`${name}: ${stretches
                .map(({ state, from: begins }) => `${state} from ${formatMoment(begins)}`)
                .slice(-20)
                .join(", ")}`}
            >
              {stretches.map(({ from: begins, to: ends, state }) => {
                if (!colours.has(state)) colours.set(state, colours.size);
                return (
                  <span
                    key={begins}
                    class={`state series-${((colours.get(state) ?? 0) % PALETTE) + 1}`}
                    style={{ left: part(begins), width: part(from + ((ends ?? Math.min(to, now)) - begins)) }}
                    title={t("{state}, from {begins}", { state, begins: formatMoment(begins) })}
                  >
                    {state}
                  </span>
                );
              })}
            </div>
          </figure>
        );
      })}
      {states.length > MAX_LANES && (
        <p class="soft note">
          {t("and")} {states.length - MAX_LANES} {t("more with states")}
        </p>
      )}
    </div>
  );
}

/** One field's chart: title with unit, lines of the chosen topics. */
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { formatMoment, formatNumber, formatSteady } from "../../core/format.ts";
import { align, extent, type GapMark, pointsIn, type Series } from "../../core/series.ts";
import type { Threshold } from "../../core/store.ts";
import { crosses, thresholdText } from "../../core/store.ts";
import { type Field, fieldLabel } from "../../core/values.ts";
import { Chart, type ChartEvents } from "./chart.ts";

export interface PanelLine {
  series: Series;
  label: string;
  colour: number;
}

interface PanelProps {
  field: Field;
  unit: string;
  lines: readonly PanelLine[];
  from: number;
  to: number;
  gaps: readonly GapMark[];
  thresholds: readonly Threshold[];
  height: number;
  withTimes: boolean;
  /** Changes whenever there may be something new to draw. */
  beat: number | string;
  theme: string;
  hover: number | null;
  events: ChartEvents;
  titled: boolean;
}

/** Only 0 and 1 ever: a switch. */
function isSwitch(series: Series): boolean {
  const count = Math.min(series.length, 200);
  if (count === 0) return false;
  for (let index = series.length - count; index < series.length; index++) {
    const value = series.value(index);
    if (value !== 0 && value !== 1) return false;
  }
  return true;
}

export function Panel(props: PanelProps) {
  const host = useRef<HTMLDivElement>(null);
  const chart = useRef<Chart | null>(null);
  const events = useRef(props.events);
  events.current = props.events;
  const key = props.lines.map((line) => `${line.series.topic} ${line.colour} ${isSwitch(line.series)}`).join("\n");

  const limits = props.thresholds.map(thresholdText).join("\n");

  useLayoutEffect(() => {
    if (!host.current) return;
    const made = new Chart(
      host.current,
      props.lines.map((line) => ({ label: line.label, colour: line.colour, stepped: isSwitch(line.series) })),
      props.height,
      props.withTimes,
      "live",
      {
        onZoom: (from, to) => events.current.onZoom(from, to),
        onHover: (time) => events.current.onHover(time),
        onReset: () => events.current.onReset(),
      },
    );
    chart.current = made;
    return () => {
      made.destroy();
      chart.current = null;
    };
    // made again only for other lines or another look
  }, [key, props.height, props.withTimes, props.theme]);

  useEffect(() => {
    const drawn = chart.current;
    if (!drawn) return;
    const points = props.lines.map((line) => pointsIn(line.series, props.from, props.to, drawn.pixels, props.gaps));
    drawn.update({
      columns: align(points),
      from: props.from,
      to: props.to,
      gaps: props.gaps,
      thresholds: props.thresholds,
    });
    // `beat` stands for the values, which change in place
  }, [props.beat, props.from, props.to, key, limits, props.height, props.theme]);

  const single = props.lines.length === 1 ? props.lines[0] : undefined;
  const at = props.hover;
  const shown = single ? (at === null ? single.series.valueAt(props.to) : single.series.valueAt(at)) : null;
  const outside =
    props.thresholds.length > 0
      ? props.lines.filter((line) => {
          const value = line.series.valueAt(at ?? props.to);
          return value !== null && props.thresholds.some((threshold) => crosses(threshold, value));
        }).length
      : 0;
  return (
    <figure class="panel">
      <figcaption>
        {props.titled && (
          <span class="panel-title">
            {fieldLabel(props.field)} {props.unit && !single && <span class="unit">{props.unit}</span>}
          </span>
        )}
        {single && shown !== null && (
          <span class="panel-value num">
            <span class="figure" style={{ minWidth: `${single.series.decimals + 4}ch` }}>
              {formatSteady(shown, single.series.decimals)}
            </span>
            <span class="unit">{props.unit}</span>
          </span>
        )}
        {at !== null && <time class="soft num">{formatMoment(at, true)}</time>}
        {props.thresholds.length > 0 && (
          <span class={`crossed${outside > 0 ? " on" : ""}`}>
            {props.lines.length === 1
              ? outside > 0
                ? "beyond its threshold"
                : "within its thresholds"
              : `${outside} of ${props.lines.length} beyond a threshold`}
          </span>
        )}
      </figcaption>
      <div ref={host} class="plot" role="img" aria-label={summary(props)} style={{ height: `${props.height}px` }} />
    </figure>
  );
}

function summary(props: PanelProps): string {
  const parts = props.lines.slice(0, 8).map((line) => {
    const range = extent(line.series, props.from, props.to);
    const now = line.series.valueAt(props.to);
    if (!range || now === null) return `${line.label}: nothing in this time`;
    return `${line.label}: now ${formatNumber(now)}, between ${formatNumber(range[0])} and ${formatNumber(range[1])}`;
  });
  return `Chart of ${fieldLabel(props.field)}${props.unit ? ` in ${props.unit}` : ""}. ${parts.join("; ")}.`;
}

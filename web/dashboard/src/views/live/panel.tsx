/** One field's chart: title with unit, lines of the chosen topics. */

import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { type Line, readingAt } from "../../core/columns.ts";
import { counted, formatCount, formatMoment, formatNumber, formatSteady } from "../../core/format.ts";
import type { Mark } from "../../core/marks.ts";
import { extentOf, rangeOf, type Scale, scaleText } from "../../core/scale.ts";
import type { GapMark } from "../../core/series.ts";
import type { Threshold } from "../../core/store.ts";
import { crosses, thresholdText } from "../../core/store.ts";
import { type Field, fieldLabel } from "../../core/values.ts";
import { t } from "../../core/words.ts";
import { Chart, type ChartEvents, type Column } from "./chart.ts";
import { setScale } from "./scales.tsx";

export interface PanelLine {
  line: Line;
  topic: string;
  label: string;
  colour: number;
  /** Decimals to show, so that a value keeps its width. */
  decimals: number;
}

interface PanelProps {
  field: Field;
  unit: string;
  lines: readonly PanelLine[];
  from: number;
  to: number;
  gaps: readonly GapMark[];
  thresholds: readonly Threshold[];
  marks: readonly Mark[];
  scale: Scale;
  height: number;
  withTimes: boolean;
  theme: string;
  hover: number | null;
  events: ChartEvents;
  titled: boolean;
  /** Whether a single line has to say of which topic it is. */
  named: boolean;
}

/** Only 0 and 1 ever: a switch. Over a longer time it is what part of it was on. */
function isSwitch({ line }: PanelLine): boolean {
  const isState = (value: number | null | undefined) => value === 0 || value === 1 || value === null;
  if (line.stats === null) return false;
  return line.band ? line.band.low.every(isState) && line.band.high.every(isState) : line.y.every(isState);
}

/** The lines as they are drawn; what can't be on a logarithmic scale breaks its line. */
function columnsOf(lines: readonly PanelLine[], isLog: boolean): Column[] {
  return lines.map(({ line: { x, y } }) => [
    x.map((time) => time / 1000),
    isLog ? y.map((value) => (value !== null && value > 0 ? value : null)) : y,
  ]);
}

export function Panel(props: PanelProps) {
  const host = useRef<HTMLDivElement>(null);
  const chart = useRef<Chart | null>(null);
  const events = useRef(props.events);
  events.current = props.events;
  const key = props.lines.map((line) => `${line.topic} ${line.colour} ${isSwitch(line)}`).join("\n");

  const limits = props.thresholds.map(thresholdText).join("\n");

  useLayoutEffect(() => {
    if (!host.current) return;
    const made = new Chart(
      host.current,
      props.lines.map((line) => ({ label: line.label, colour: line.colour, stepped: isSwitch(line) })),
      props.height,
      props.withTimes,
      props.scale === "log",
      "live",
      {
        onZoom: (from, to) => events.current.onZoom(from, to),
        onHover: (time) => events.current.onHover(time),
        onReset: () => events.current.onReset(),
        onMove: (window) => events.current.onMove(window),
        onSettle: () => events.current.onSettle(),
      },
    );
    chart.current = made;
    return () => {
      made.destroy();
      chart.current = null;
    };
    // made again only for other lines or another look
  }, [key, props.height, props.withTimes, props.scale === "log", props.theme]);

  const all = props.lines.map(({ line }) => line);
  const extent = useMemo(
    () => extentOf(all, props.from, props.to, props.scale !== "auto"),
    [props.lines, props.from, props.to, props.scale],
  );
  const scale = scaleText(props.field, props.scale);
  useEffect(() => {
    chart.current?.update({
      columns: columnsOf(props.lines, props.scale === "log"),
      bands: props.lines.map(({ line: { x, band } }) => band && { x, ...band }),
      from: props.from,
      to: props.to,
      gaps: props.gaps,
      thresholds: props.thresholds,
      marks: props.marks,
      range: rangeOf(
        props.scale,
        extent,
        props.thresholds.map(({ value }) => value),
      ),
    });
  }, [props.lines, props.from, props.to, key, limits, props.marks, scale, props.height, props.theme]);

  const single = props.lines.length === 1 ? props.lines[0] : undefined;
  const at = props.hover;
  const reading = single && at !== null ? readingAt(single.line, at) : null;
  const shown = single ? (at === null ? single.line.newest : (reading?.value ?? null)) : null;
  const outside =
    props.thresholds.length > 0
      ? props.lines.filter((line) => {
          const value = at === null ? line.line.newest : (readingAt(line.line, at)?.value ?? null);
          return value !== null && props.thresholds.some((threshold) => crosses(threshold, value));
        }).length
      : 0;
  return (
    <figure class="panel">
      <figcaption>
        {single && props.named && <span class="panel-title">{single.label}</span>}
        {props.titled && (
          <span class="panel-title">
            {fieldLabel(props.field)} {props.unit && !single && <span class="unit">{props.unit}</span>}
          </span>
        )}
        {single && shown !== null && (
          <span class="panel-value num">
            <span class="figure" style={{ minWidth: `${single.decimals + 4}ch` }}>
              {formatSteady(shown, single.decimals)}
            </span>
            <span class="unit">{props.unit}</span>
          </span>
        )}
        {single && reading && reading.low < reading.high && (
          <span class="soft num">
            {formatSteady(reading.low, single.decimals)} {t("to")} {formatSteady(reading.high, single.decimals)}
          </span>
        )}
        {single && at === null && single.line.stats && (
          <span class="soft num range">
            {formatSteady(single.line.stats.min, single.decimals)} {t("to")}{" "}
            {formatSteady(single.line.stats.max, single.decimals)}
            {t(", mean")} {formatSteady(single.line.stats.mean, single.decimals)}
          </span>
        )}
        {extent !== null && extent.above + extent.below > 0 && (
          <button type="button" class="quiet beyond" onClick={() => setScale(props.field, "all")}>
            {extent.above > 0 && `▲ ${formatCount(extent.above)} `}
            {extent.below > 0 && `▼ ${formatCount(extent.below)} `}
            {t("beyond the scale")}
          </button>
        )}
        {at !== null && <time class="soft num">{formatMoment(reading?.time ?? at, true)}</time>}
        {props.thresholds.length > 0 && (
          <span class={`crossed${outside > 0 ? " on" : ""}`}>
            {props.lines.length === 1
              ? outside > 0
                ? t("beyond its threshold")
                : t("within its thresholds")
              : t("{outside} of {length} beyond a threshold", { outside, length: props.lines.length })}
          </span>
        )}
      </figcaption>
      <div ref={host} class="plot" role="img" aria-label={summary(props)} style={{ height: `${props.height}px` }} />
    </figure>
  );
}

function summary(props: PanelProps): string {
  const parts = props.lines.slice(0, 8).map(({ label, line: { y, stats, newest } }) => {
    if (!stats || newest === null) return t("{label}: nothing in this time", { label });
    const gaps = y.filter((value) => value === null).length;
    const text = t("{label}: now {newest}, between {min} and {max}, {readings}", {
      label,
      newest: formatNumber(newest),
      min: formatNumber(stats.min),
      max: formatNumber(stats.max),
      readings: counted(stats.count, "reading"),
    });
    return gaps === 0 ? text : `${text}, ${counted(gaps, "gap")}`;
  });
  const named = { field: fieldLabel(props.field), unit: props.unit, lines: parts.join("; ") };
  return props.unit ? t("Chart of {field} in {unit}. {lines}.", named) : t("Chart of {field}. {lines}.", named);
}

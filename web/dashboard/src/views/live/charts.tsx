/** The charts of the chosen fields, one below the other, which move as one: by pointer and by key. */

import type { RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Mark } from "../../core/marks.ts";
import type { Scale } from "../../core/scale.ts";
import type { GapMark } from "../../core/series.ts";
import type { Threshold } from "../../core/store.ts";
import type { Field } from "../../core/values.ts";
import type { TimeWindow } from "../../core/window.ts";
import { t } from "../../core/words.ts";
import { theme } from "../../theme.ts";
import { Panel, type PanelLine } from "./panel.tsx";

/** What can be done to the window of time. */
export interface Moves {
  zoom(window: TimeWindow): void;
  /** The window while it is dragged, and the end of that. */
  drag(window: TimeWindow): void;
  settle(): void;
  /** Makes it `factor` times as wide, and moves it by `shift` of its width. */
  scale(factor: number, shift?: number): void;
  /** Back to live. */
  reset(): void;
  togglePause(): void;
}

interface ChartsProps {
  gaps: readonly GapMark[];
  unit: (field: Field) => string;
  fields: readonly Field[];
  lines: (field: Field) => readonly PanelLine[];
  thresholds: readonly Threshold[];
  marks: readonly Mark[];
  scales: ReadonlyMap<Field, Scale>;
  window: TimeWindow;
  hover: number | null;
  onHover: (time: number | null) => void;
  moves: Moves;
  /** Whether the charts take the height that is left for them, as in a frame, or their own. */
  fills: boolean;
  /** Whether a single line has to say of which topic it is. */
  named: boolean;
  /** How wide the charts' drawing areas are, in pixels. */
  onWidth: (pixels: number) => void;
}

/** What a chart's scale and its right edge take of its width, in pixels. */
const SIDES = 86;
/** Heights of a panel's parts in pixels, as the style sheet has them. */
const AXIS = 24;
const CAPTION = 26;

/** A panel's height in pixels: about a third of the page for one, and less for each of several. */
function ownHeight(panels: number): number {
  const [part, least] = panels === 1 ? [0.36, 260] : panels === 2 ? [0.25, 190] : [0.19, 160];
  return Math.round(Math.max(least, Math.min(innerHeight * part, 3 * least)));
}

/**
 * How much height a frame leaves for its charts: the page is as tall as whoever embeds it made it.
 *
 * @param onWidth told how wide they are.
 */
function useRoom(onWidth: (pixels: number) => void): [number, RefObject<HTMLDivElement | null>] {
  const box = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(innerHeight - 50);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const measure = () => {
      setRoom(element.clientHeight);
      onWidth(Math.max(100, element.clientWidth - SIDES));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return [room, box];
}

export function Charts(props: ChartsProps) {
  const { gaps, unit, fields, lines, thresholds, marks, scales, window, hover, onHover, moves, fills, named, onWidth } =
    props;
  const [room, box] = useRoom(onWidth);
  const height = fills
    ? Math.max(60, Math.floor((room - AXIS) / Math.max(1, fields.length)) - CAPTION)
    : ownHeight(fields.length);

  // where the last panel may be out of view, each has its times
  const isTall = !fills && fields.length * (height + CAPTION) > innerHeight * 0.55;
  const onKey = (event: KeyboardEvent) => {
    if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") moves.scale(0.5);
    else if (event.key === "-") moves.scale(2);
    else if (event.key === "ArrowLeft") moves.scale(1, -0.25);
    else if (event.key === "ArrowRight") moves.scale(1, 0.25);
    else if (event.key === "0" || event.key === "Escape") moves.reset();
    else if (event.key === " ") moves.togglePause();
    else return;
    event.preventDefault();
  };

  return (
    <div
      ref={box}
      class="charts"
      role="group"
      tabIndex={0}
      aria-label={t("Charts. Plus and minus zoom, arrows move, 0 goes back to live, space pauses.")}
      onKeyDown={onKey}
    >
      {fields.map((field, index) => (
        <Panel
          key={field}
          field={field}
          unit={unit(field)}
          lines={lines(field)}
          from={window.from}
          to={window.to}
          gaps={gaps}
          thresholds={thresholds.filter((threshold) => threshold.field === field)}
          marks={marks}
          scale={scales.get(field) ?? "auto"}
          height={height + (isTall || index === fields.length - 1 ? AXIS : 0)}
          withTimes={isTall || index === fields.length - 1}
          theme={theme.value}
          hover={hover}
          named={named}
          titled={fields.length > 1 || field !== ""}
          events={{
            onZoom: (from, to) => moves.zoom({ from, to }),
            onHover,
            onReset: moves.reset,
            onMove: moves.drag,
            onSettle: moves.settle,
          }}
        />
      ))}
    </div>
  );
}

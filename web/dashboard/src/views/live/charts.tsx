/** The charts of the chosen fields, one below the other, which move as one: by pointer and by key. */
import type { RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { LiveStore, Threshold } from "../../core/store.ts";
import type { Field } from "../../core/values.ts";
import type { TimeWindow } from "../../core/window.ts";
import { theme } from "../../theme.ts";
import type { Units } from "../../units.ts";
import { Panel, type PanelLine } from "./panel.tsx";

/** What can be done to the window of time. */
export interface Moves {
  zoom(window: TimeWindow): void;
  /** Makes it `factor` times as wide, and moves it by `shift` of its width. */
  scale(factor: number, shift?: number): void;
  /** Back to live. */
  reset(): void;
  togglePause(): void;
}

interface ChartsProps {
  store: LiveStore;
  units: Units;
  fields: readonly Field[];
  lines: (field: Field) => PanelLine[];
  thresholds: readonly Threshold[];
  window: TimeWindow;
  /** Changes whenever there may be something new to draw. */
  beat: string;
  hover: number | null;
  onHover: (time: number | null) => void;
  moves: Moves;
  /** Whether the charts take the height that is left for them, as in a frame, or their own. */
  fills: boolean;
}

/** Heights of a panel's parts in pixels, as the style sheet has them. */
const AXIS = 24;
const CAPTION = 26;

/** A panel's height in pixels: about a third of the page for one, and less for each of several. */
function ownHeight(panels: number): number {
  const [part, least] = panels === 1 ? [0.36, 260] : panels === 2 ? [0.25, 190] : [0.19, 160];
  return Math.round(Math.max(least, Math.min(innerHeight * part, 3 * least)));
}

/** How much height a frame leaves for its charts: the page is as tall as whoever embeds it made it. */
function useRoom(fills: boolean): [number, RefObject<HTMLDivElement | null>] {
  const box = useRef<HTMLDivElement>(null);
  const [room, setRoom] = useState(innerHeight - 50);
  useLayoutEffect(() => {
    const element = box.current;
    if (!fills || !element) return undefined;
    const observer = new ResizeObserver(() => setRoom(element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  });
  return [room, box];
}

export function Charts(props: ChartsProps) {
  const { store, units, fields, lines, thresholds, window, beat, hover, onHover, moves, fills } = props;
  const [room, box] = useRoom(fills);
  const height = fills
    ? Math.max(60, Math.floor((room - AXIS) / Math.max(1, fields.length)) - CAPTION)
    : ownHeight(fields.length);

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
      aria-label="Charts. Plus and minus zoom, arrows move, 0 goes back to live, space pauses."
      onKeyDown={onKey}
    >
      {fields.map((field, index) => (
        <Panel
          key={field}
          field={field}
          unit={units.of(field)}
          lines={lines(field)}
          from={window.from}
          to={window.to}
          gaps={store.gaps}
          thresholds={thresholds.filter((threshold) => threshold.field === field)}
          height={height + (index === fields.length - 1 ? AXIS : 0)}
          withTimes={index === fields.length - 1}
          beat={beat}
          theme={theme.value}
          hover={hover}
          titled={fields.length > 1 || field !== ""}
          events={{ onZoom: (from, to) => moves.zoom({ from, to }), onHover, onReset: moves.reset }}
        />
      ))}
    </div>
  );
}

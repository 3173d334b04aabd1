/** uPlot, told what this dashboard wants of a chart: honest gaps, thresholds, one hover for all panels. */
import "uplot/dist/uPlot.min.css";
import uPlot from "uplot";
import { nearestIndex } from "../../core/columns.ts";
import { formatNumber } from "../../core/format.ts";
import type { Mark } from "../../core/marks.ts";
import { travelOf } from "../../core/scale.ts";
import type { GapMark } from "../../core/series.ts";
import type { Threshold } from "../../core/store.ts";
import type { TimeWindow } from "../../core/window.ts";
import { listenToGestures } from "./gestures.ts";

interface ChartLine {
  label: string;
  /** Which colour of the palette, from 0. */
  colour: number;
  /** Switches hold their value until the next one: drawn as steps. */
  stepped: boolean;
}

interface Shade {
  /** Milliseconds. */
  x: readonly number[];
  /** null breaks it. */
  low: readonly (number | null)[];
  high: readonly (number | null)[];
}

/** One line's moments, in seconds, and its reading at each; null breaks it. */
export type Column = readonly [x: readonly number[], y: readonly (number | null)[]];

interface ChartData {
  columns: readonly Column[];
  /** What is shaded of each line, from the least to the greatest; null for nothing. */
  bands: readonly (Shade | null)[];
  /** Milliseconds. */
  from: number;
  to: number;
  gaps: readonly GapMark[];
  thresholds: readonly Threshold[];
  /** Moments with a text each, in order. */
  marks: readonly Mark[];
  /** What the scale goes from and to. */
  range: readonly [number, number];
}

export interface ChartEvents {
  /** A range was dragged, in milliseconds. */
  onZoom(from: number, to: number): void;
  /** Where the pointer is in time, null when it left. */
  onHover(time: number | null): void;
  onReset(): void;
  /** The window is dragged or stretched; `onSettle` comes when that ends. */
  onMove(window: TimeWindow): void;
  onSettle(): void;
}

const probe = document.createElement("span");

/** A colour of the style sheet as the canvas understands it, in the present theme. */
export function colour(name: string, alpha = 1): string {
  if (!probe.isConnected) {
    probe.hidden = true;
    // where a visitor chose the colours of all pages, lines would all have that of texts
    probe.style.forcedColorAdjust = "none";
    document.body.append(probe);
  }
  probe.style.color = alpha === 1 ? `var(${name})` : `color-mix(in srgb, var(${name}) ${100 * alpha}%, transparent)`;
  return getComputedStyle(probe).color;
}

export const PALETTE = 8;
/** How wide a line is. */
const WIDTH = 1.75;
/** A line that goes up and down over and over is drawn as thin as the screen can, in its pixels. */
const THIN = 1;
/** Times its chart's width that a line may go up and down: wide, one that goes further takes 40 times as long to draw. */
const WILD = 8;
/** How large the dot of a reading is, and how far from the next one it has to be, in pixels. */
const DOT = { size: 5, space: 13 };
/** How much of a line's colour its band has. */
const BAND_ALPHA = 0.2;
const DAY_S = 86_400;

const FONT = '12px system-ui, "Segoe UI", Roboto, sans-serif';
const two = (part: number) => String(part).padStart(2, "0");

const seriesColour = (line: ChartLine) => `--series-${(line.colour % PALETTE) + 1}`;

/** Times of day on the axis, with the date where the day begins. */
function timeLabels(_plot: uPlot, splits: number[], _axis: number, _space: number, step: number): string[] {
  return splits.map((seconds, index) => {
    const at = new Date(seconds * 1000);
    if (step >= 28 * DAY_S && at.getMonth() === 0) return String(at.getFullYear());
    if (step >= DAY_S || (at.getHours() === 0 && at.getMinutes() === 0 && at.getSeconds() === 0)) {
      return `${two(at.getMonth() + 1)}-${two(at.getDate())}`;
    }
    const clock = `${two(at.getHours())}:${two(at.getMinutes())}`;
    if (step >= 60) return clock;
    if (step >= 1) return `${clock}:${two(at.getSeconds())}`;
    return index === 0
      ? `${clock}:${two(at.getSeconds())}`
      : `:${two(at.getSeconds())}.${Math.floor(at.getMilliseconds() / 100)}`;
  });
}

/** As much of a text as has room, with a mark where it was cut; "" where that is next to nothing. */
function fitted(ctx: CanvasRenderingContext2D, text: string, room: number): string {
  if (ctx.measureText(text).width <= room) return text;
  const kept = Math.floor((text.length * room) / ctx.measureText(text).width) - 1;
  return kept < 2 ? "" : `${text.slice(0, kept)}…`;
}

/** What uPlot draws: nothing, and then each line with times of its own (its mode 2). */
function drawnBy(columns: readonly Column[]): uPlot.AlignedData {
  // without a line it knows no scale
  const lines = columns.length > 0 ? columns : [[[], []]];
  return [null, ...lines] as unknown as uPlot.AlignedData;
}

/** The times and readings of one of uPlot's lines, which it counts from 1. */
const columnOf = (plot: uPlot, series: number) => plot.data[series] as unknown as Column;

/** Where not every reading has a dot: those that no line leads to, which would not be seen. */
function alone(plot: uPlot, series: number): number[] {
  const [, readings] = columnOf(plot, series);
  const found: number[] = [];
  let last = -1;
  let joined = true;
  for (const [index, value] of readings.entries()) {
    if (value === null) {
      if (!joined && last >= 0) found.push(last);
      joined = false;
      last = -1;
      continue;
    }
    // the first after a break is alone until another one follows
    joined = last >= 0;
    last = index;
  }
  if (!joined && last >= 0) found.push(last);
  return found;
}

export class Chart {
  private plot: uPlot;
  private data: ChartData = {
    columns: [],
    bands: [],
    from: 0,
    to: 1,
    gaps: [],
    thresholds: [],
    marks: [],
    range: [1, 10],
  };
  private readonly observer: ResizeObserver;
  private readonly letGo: () => void;
  private quiet = false;
  /** Asked of the style sheet once: each question makes the browser work out styles. */
  private readonly colours = {
    soft: colour("--soft"),
    ink: colour("--ink"),
    grid: colour("--grid"),
    gapFill: colour("--gap-fill"),
    gapLine: colour("--gap-line"),
    threshold: colour("--threshold"),
    thresholdFill: colour("--threshold-fill"),
  };
  private readonly shades: readonly string[];

  constructor(
    private readonly host: HTMLElement,
    private readonly lines: readonly ChartLine[],
    private readonly height: number,
    private readonly withTimes: boolean,
    private readonly isLog: boolean,
    private readonly group: string,
    private readonly events: ChartEvents,
  ) {
    this.shades = lines.map((line) => colour(seriesColour(line), BAND_ALPHA));
    this.data.columns = lines.map(() => [[], []]);
    this.plot = this.build();
    this.observer = new ResizeObserver(() => this.plot.setSize({ width: this.width, height: this.height }));
    this.observer.observe(host);
    this.letGo = listenToGestures(this.plot.over, {
      window: () => ({ from: this.data.from, to: this.data.to }),
      move: (window) => this.events.onMove(window),
      settle: () => this.events.onSettle(),
    });
  }

  private get isSwitch(): boolean {
    return this.lines.length > 0 && this.lines.every((line) => line.stepped);
  }

  /** Whether each reading has room for a dot of its own. */
  private get hasRoomForDots(): boolean {
    const { columns, from, to } = this.data;
    let readings = 0;
    let first = Number.POSITIVE_INFINITY;
    let last = Number.NEGATIVE_INFINITY;
    for (const [x] of columns) {
      readings += x.length;
      first = Math.min(first, x[0] ?? first);
      last = Math.max(last, x[x.length - 1] ?? last);
    }
    const width = ((last - first) * 1000 * this.plot.over.clientWidth) / (to - from);
    return readings * DOT.space <= width;
  }

  private get width(): number {
    return Math.max(120, this.host.clientWidth);
  }

  private build(): uPlot {
    const { soft, grid } = this.colours;
    const stepped = uPlot.paths.stepped?.({ align: 1 });
    const options: uPlot.Options = {
      // each line has times of its own: a table of all of them grows with the lines times their readings
      mode: 2,
      width: this.width,
      height: this.height,
      // The first line is the gap's edge, not the axis': room so that the newest point isn't cut.
      padding: [10, 28, this.withTimes ? 0 : 6, 0],
      legend: { show: false },
      scales: {
        x: { time: true, range: () => [this.data.from / 1000, this.data.to / 1000] },
        y: {
          // 3: logarithmic
          distr: this.isLog ? 3 : 1,
          range: (): uPlot.Range.MinMax => (this.isSwitch ? [-0.15, 1.15] : [...this.data.range]),
        },
      },
      axes: [
        {
          show: true,
          size: this.withTimes ? 30 : 0,
          stroke: soft,
          font: FONT,
          space: 80,
          gap: 6,
          grid: { stroke: grid, width: 1 },
          ticks: { show: false },
          values: this.withTimes ? timeLabels : () => [],
        },
        {
          stroke: soft,
          font: FONT,
          size: 58,
          gap: 8,
          space: 34,
          grid: { stroke: grid, width: 1 },
          ticks: { show: false },
          // as readings are written, whatever the browser's language does with decimals
          values: (_plot, splits) => splits.map((value) => (value === null ? "" : formatNumber(value))),
          // A switch has two states and nothing in between.
          ...(this.isSwitch ? { splits: () => [0, 1] } : {}),
        },
      ],
      cursor: {
        sync: { key: this.group, setSeries: false },
        drag: { x: true, y: false, setScale: false },
        points: { size: 7 },
        // the dot of each line is on its own nearest reading, which is also the one that is told
        dataIdx: (plot, series) => {
          const found = nearestIndex(...columnOf(plot, series), plot.posToVal(plot.cursor.left ?? 0, "x"));
          return found < 0 ? null : found;
        },
        bind: {
          // dragged with Shift, the window moves
          mousedown: (_plot, _target, handler) => (event: MouseEvent) => (event.shiftKey ? null : handler(event)),
          dblclick: () => () => {
            this.events.onReset();
            return null;
          },
        },
      },
      series: [
        {},
        ...(this.lines.length === 0 ? [{ auto: false }] : []),
        ...this.lines.map((line): uPlot.Series => {
          const stroke = colour(seriesColour(line));
          const paths = line.stepped && stepped ? { paths: stepped } : {};
          return {
            label: line.label,
            auto: false,
            stroke,
            width: WIDTH,
            ...(line.colour >= PALETTE ? { dash: [6, 4] } : {}),
            ...paths,
            points: {
              size: DOT.size,
              stroke,
              fill: stroke,
              show: () => this.hasRoomForDots,
              // each by its index: of lines with times of their own uPlot knows no first and last one
              filter: (plot, series, isEach) => (isEach ? [...columnOf(plot, series)[1].keys()] : alone(plot, series)),
            },
            spanGaps: false,
          };
        }),
      ],
      hooks: {
        drawClear: [(plot) => this.drawBelow(plot)],
        drawAxes: [(plot) => this.drawShades(plot)],
        draw: [(plot) => this.drawAbove(plot)],
        setSelect: [
          (plot) => {
            if (this.quiet || plot.select.width < 6) return;
            const from = plot.posToVal(plot.select.left, "x") * 1000;
            const to = plot.posToVal(plot.select.left + plot.select.width, "x") * 1000;
            this.quiet = true;
            plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            this.quiet = false;
            this.events.onZoom(from, to);
          },
        ],
        setCursor: [
          (plot) => {
            const left = plot.cursor.left ?? -1;
            if (left < 0) this.events.onHover(null);
            // The panels follow each other's pointer; the one below it says where it is.
            else if (plot.over.matches(":hover")) this.events.onHover(plot.posToVal(left, "x") * 1000);
          },
        ],
      },
    };
    return new uPlot(options, drawnBy(this.data.columns), this.host);
  }

  private drawBelow(plot: uPlot): void {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const threshold of this.data.thresholds) {
      const at = plot.valToPos(threshold.value, "y", true);
      ctx.fillStyle = this.colours.thresholdFill;
      if (threshold.above) ctx.fillRect(bbox.left, bbox.top, bbox.width, Math.max(0, at - bbox.top));
      else ctx.fillRect(bbox.left, at, bbox.width, Math.max(0, bbox.top + bbox.height - at));
    }
    ctx.fillStyle = this.colours.gapFill;
    ctx.strokeStyle = this.colours.gapLine;
    for (const gap of this.data.gaps) {
      const left = plot.valToPos(gap.from / 1000, "x", true);
      const right = gap.to === null ? bbox.left + bbox.width : plot.valToPos(gap.to / 1000, "x", true);
      if (right < bbox.left || left > bbox.left + bbox.width) continue;
      const width = Math.max(3 * devicePixelRatio, right - left);
      ctx.fillRect(left, bbox.top, width, bbox.height);
      ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(left, bbox.top);
      ctx.lineTo(left, bbox.top + bbox.height);
      ctx.stroke();
      ctx.setLineDash([]);
    }
    ctx.restore();
  }

  private drawShades(plot: uPlot): void {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const [index, band] of this.data.bands.entries()) if (band) this.shade(plot, index, band);
    ctx.restore();
  }

  /** A band as one shape: uPlot would cut it out of two others, which takes three times as long to draw. */
  private shade(plot: uPlot, index: number, { x, low, high }: Shade): void {
    const isStepped = this.lines[index]?.stepped === true;
    const shape = new Path2D();
    const across = (at: number) => plot.valToPos((x[at] ?? 0) / 1000, "x", true);
    const up = (value: number | null | undefined) =>
      // what can't be on a logarithmic scale is at its bottom
      plot.valToPos(this.isLog ? Math.max(value ?? 0, this.data.range[0]) : (value ?? 0), "y", true);
    const draw = (from: number, end: number) => {
      for (let at = from; at < end; at++) {
        if (at === from) shape.moveTo(across(at), up(high[at]));
        else if (isStepped) shape.lineTo(across(at), up(high[at - 1]));
        shape.lineTo(across(at), up(high[at]));
      }
      for (let at = end - 1; at >= from; at--) {
        shape.lineTo(across(at), up(low[at]));
        if (isStepped && at > from) shape.lineTo(across(at), up(low[at - 1]));
      }
      shape.closePath();
    };
    let begin = 0;
    for (let at = 0; at <= x.length; at++) {
      if (at < x.length && low[at] !== null) continue;
      if (at > begin) draw(begin, at);
      begin = at + 1;
    }
    plot.ctx.fillStyle = this.shades[index] ?? "";
    plot.ctx.fill(shape);
  }

  private drawAbove(plot: uPlot): void {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = this.colours.threshold;
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const threshold of this.data.thresholds) {
      const at = plot.valToPos(threshold.value, "y", true);
      if (at < bbox.top || at > bbox.top + bbox.height) continue;
      ctx.beginPath();
      ctx.moveTo(bbox.left, at);
      ctx.lineTo(bbox.left + bbox.width, at);
      ctx.stroke();
    }
    ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.strokeStyle = this.colours.soft;
    ctx.fillStyle = this.colours.ink;
    ctx.font = `${11 * devicePixelRatio}px ${FONT.slice(FONT.indexOf(" ") + 1)}`;
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    const right = bbox.left + bbox.width;
    // a text ends where the next mark stands
    const places = this.data.marks.map(({ time }) => plot.valToPos(time / 1000, "x", true));
    for (const [index, mark] of this.data.marks.entries()) {
      const at = places[index] ?? -1;
      if (at < bbox.left || at > right) continue;
      ctx.beginPath();
      ctx.moveTo(at, bbox.top);
      ctx.lineTo(at, bbox.top + bbox.height);
      ctx.stroke();
      const room = Math.min(right, places[index + 1] ?? right) - at - 8 * devicePixelRatio;
      const text = fitted(ctx, mark.text, room);
      if (text !== "") ctx.fillText(text, at + 4 * devicePixelRatio, bbox.top + 11 * devicePixelRatio);
    }
    ctx.restore();
  }

  update(data: ChartData): void {
    this.data = data;
    for (const index of this.lines.keys()) {
      const series = this.plot.series[index + 1];
      const travel = travelOf(data.columns[index]?.[1] ?? [], data.range, this.isLog) * this.height;
      if (series) series.width = travel > WILD * this.width ? THIN / devicePixelRatio : WIDTH;
    }
    this.plot.setData(drawnBy(data.columns));
  }

  destroy(): void {
    this.letGo();
    this.observer.disconnect();
    this.plot.destroy();
  }
}

/** uPlot, told what this dashboard wants of a chart: honest gaps, thresholds, one hover for all panels. */
import "uplot/dist/uPlot.min.css";
import uPlot from "uplot";
import type { GapMark } from "../../core/series.ts";
import type { Threshold } from "../../core/store.ts";

export interface ChartLine {
  label: string;
  /** Which colour of the palette, from 0. */
  colour: number;
  /** Switches hold their value until the next one: drawn as steps. */
  stepped: boolean;
}

export interface ChartData {
  columns: [number[], ...(number | null | undefined)[][]];
  /** Milliseconds. */
  from: number;
  to: number;
  gaps: readonly GapMark[];
  thresholds: readonly Threshold[];
}

export interface ChartEvents {
  /** A range was dragged, in milliseconds. */
  onZoom(from: number, to: number): void;
  /** Where the pointer is in time, null when it left. */
  onHover(time: number | null): void;
  onReset(): void;
}

const probe = document.createElement("span");

/** A colour of the style sheet as the canvas understands it, in the present theme. */
function colour(name: string): string {
  if (!probe.isConnected) {
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

export const PALETTE = 8;

const FONT = '12px system-ui, "Segoe UI", Roboto, sans-serif';
const two = (part: number) => String(part).padStart(2, "0");

/** Times of day on the axis, with the date where the day begins. */
function timeLabels(_plot: uPlot, splits: number[], _axis: number, _space: number, step: number): string[] {
  return splits.map((seconds, index) => {
    const at = new Date(seconds * 1000);
    if (step >= 86_400 || (at.getHours() === 0 && at.getMinutes() === 0 && at.getSeconds() === 0)) {
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

export class Chart {
  private plot: uPlot;
  private data: ChartData = { columns: [[]], from: 0, to: 1, gaps: [], thresholds: [] };
  private readonly observer: ResizeObserver;
  private quiet = false;

  constructor(
    private readonly host: HTMLElement,
    private readonly lines: readonly ChartLine[],
    private readonly height: number,
    private readonly withTimes: boolean,
    private readonly group: string,
    private readonly events: ChartEvents,
  ) {
    this.plot = this.build();
    this.observer = new ResizeObserver(() => this.plot.setSize({ width: this.width, height: this.height }));
    this.observer.observe(host);
  }

  private get isSwitch(): boolean {
    return this.lines.length > 0 && this.lines.every((line) => line.stepped);
  }

  private get width(): number {
    return Math.max(120, this.host.clientWidth);
  }

  private build(): uPlot {
    const soft = colour("--soft");
    const grid = colour("--grid");
    const stepped = uPlot.paths.stepped?.({ align: 1 });
    const options: uPlot.Options = {
      width: this.width,
      height: this.height,
      // The first line is the gap's edge, not the axis': room so that the newest point isn't cut.
      padding: [10, 28, this.withTimes ? 0 : 6, 0],
      legend: { show: false },
      scales: {
        x: { time: true, range: () => [this.data.from / 1000, this.data.to / 1000] },
        y: { range: (_plot, low, high) => this.range(low, high) },
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
          // A switch has two states and nothing in between.
          ...(this.isSwitch ? { splits: () => [0, 1] } : {}),
        },
      ],
      cursor: {
        sync: { key: this.group, setSeries: false },
        drag: { x: true, y: false, setScale: false },
        points: { size: 7 },
        bind: {
          dblclick: () => () => {
            this.events.onReset();
            return null;
          },
        },
      },
      series: [
        {},
        ...this.lines.map((line): uPlot.Series => {
          const stroke = colour(`--series-${(line.colour % PALETTE) + 1}`);
          return {
            label: line.label,
            stroke,
            width: 1.75,
            ...(line.colour >= PALETTE ? { dash: [6, 4] } : {}),
            ...(line.stepped && stepped ? { paths: stepped } : {}),
            points: { size: 5, stroke, fill: stroke },
            spanGaps: false,
          };
        }),
      ],
      hooks: {
        drawClear: [(plot) => this.drawBelow(plot)],
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
            // The panels follow each other's pointer; the one below it says whose dots' time it is.
            else if (plot.over.matches(":hover")) {
              const seconds = plot.data[0][plot.cursor.idx ?? -1];
              this.events.onHover(seconds === undefined ? null : seconds * 1000);
            }
          },
        ],
      },
    };
    return new uPlot(options, this.data.columns as uPlot.AlignedData, this.host);
  }

  /** A little air above and below; a flat line isn't blown up to drama, thresholds near the data are in view. */
  private range(low: number | null, high: number | null): uPlot.Range.MinMax {
    if (this.isSwitch) return [-0.15, 1.15];
    if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
    let bottom = low;
    let top = high;
    for (const { value } of this.data.thresholds) {
      const span = Math.max(top - bottom, Math.abs(top) * 0.05, 1e-6);
      if (value > bottom - 3 * span && value < top + 3 * span) {
        bottom = Math.min(bottom, value);
        top = Math.max(top, value);
      }
    }
    const least = Math.max(Math.abs(top) * 0.01, Math.abs(bottom) * 0.01, 1e-6);
    const air = Math.max((top - bottom) * 0.12, (least - (top - bottom)) / 2);
    const floor = low >= 0 && bottom - air < 0 ? 0 : bottom - air;
    return [floor, top + air];
  }

  private drawBelow(plot: uPlot): void {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const threshold of this.data.thresholds) {
      const at = plot.valToPos(threshold.value, "y", true);
      ctx.fillStyle = colour("--threshold-fill");
      if (threshold.above) ctx.fillRect(bbox.left, bbox.top, bbox.width, Math.max(0, at - bbox.top));
      else ctx.fillRect(bbox.left, at, bbox.width, Math.max(0, bbox.top + bbox.height - at));
    }
    ctx.fillStyle = colour("--gap-fill");
    ctx.strokeStyle = colour("--gap-line");
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

  private drawAbove(plot: uPlot): void {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = colour("--threshold");
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
    ctx.restore();
  }

  update(data: ChartData): void {
    this.data = data;
    this.plot.setData(data.columns as uPlot.AlignedData);
  }

  /** The drawing area's width in pixels: how much detail makes sense. */
  get pixels(): number {
    return Math.max(100, this.plot.bbox.width);
  }

  destroy(): void {
    this.observer.disconnect();
    this.plot.destroy();
  }
}

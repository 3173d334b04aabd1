/** Where something was: its positions on a plain canvas, north up, without a picture from any other host. */

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import * as api from "../../api.ts";
import { counted, formatCount, formatMoment } from "../../core/format.ts";
import type { LiveStore } from "../../core/store.ts";
import {
  formatMetres,
  formatPosition,
  indexAt,
  lengthOf,
  nearestPoint,
  type Plane,
  planeOf,
  scaleBar,
  type TrackPoint,
  Tracks,
} from "../../core/track.ts";
import type { TimeWindow } from "../../core/window.ts";
import { t } from "../../core/words.ts";
import { theme } from "../../theme.ts";
import { colour, PALETTE } from "./chart.ts";

/** Messages of the past that are looked through for positions. */
const LOOKED_AT = 10_000;
/** How near the pointer has to be to a point, in pixels. */
const REACH = 40;
const PADDING = 34;
const FONT = '12px system-ui, "Segoe UI", Roboto, sans-serif';

interface TrackProps {
  store: LiveStore;
  filter: string;
  /** What is asked of the past; null: the store has all of it. */
  since: string | number | null;
  window: TimeWindow;
  labels: (topics: readonly string[]) => string[];
  hover: number | null;
  onHover: (time: number | null) => void;
}

/** The tracks of what a store has, filled up with the past. */
function useTracks(store: LiveStore, filter: string, since: string | number | null): Tracks {
  const tracks = useRef(new Tracks()).current;
  const seen = useRef<{ store: LiveStore | null; n: number }>({ store: null, n: 0 });
  const [, setArrived] = useState(0);
  // a picture that stands still is a store of its own
  if (seen.current.store !== store) seen.current = { store, n: 0 };
  for (let index = store.lengthUntil(seen.current.n); index < store.length; index++) {
    const row = store.row(index);
    if (row?.kind !== "message") continue;
    tracks.note(row.message);
    seen.current.n = row.message.n;
  }
  const isWanted = since !== null && tracks.byTopic.size > 0;
  useEffect(() => {
    if (!isWanted || since === null) return undefined;
    const aborter = new AbortController();
    api.messages([filter], { since, order: "desc", limit: LOOKED_AT }, aborter.signal).then(
      ({ messages }) => {
        for (const message of messages.reverse()) tracks.note(message);
        setArrived((count) => count + 1);
      },
      // what is live is shown all the same
      () => undefined,
    );
    return () => aborter.abort();
  }, [isWanted, since, filter]);
  return tracks;
}

export function TrackArea({ store, filter, since, window, labels, hover, onHover }: TrackProps) {
  const tracks = useTracks(store, filter, since);
  const host = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [width, setWidth] = useState(0);
  const [chosen, setChosen] = useState<{ topic: string; seq: number } | null>(null);
  const topics = [...tracks.byTopic.keys()].sort();
  const names = labels(topics);
  const shown = topics.map((topic) => tracks.between(topic, window.from, window.to));
  const isThere = topics.length > 0;
  useLayoutEffect(() => {
    if (!host.current) return undefined;
    const element = host.current;
    const measure = () => setWidth(element.clientWidth);
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [isThere]);
  const height = Math.round(Math.max(220, Math.min(innerHeight * 0.45, width * 0.6)));
  const plane = width > 0 ? planeOf(shown.flat(), width, height, PADDING) : null;
  // the pointer on a chart says when, the one on the plane where
  const marks = shown.map((points, track) => {
    // several may have come in one millisecond
    if (chosen !== null) return chosen.topic === topics[track] ? points.findIndex(({ seq }) => seq === chosen.seq) : -1;
    return hover === null ? -1 : indexAt(points, hover);
  });
  useEffect(() => {
    if (canvas.current && width > 0) draw(canvas.current, width, height, shown, plane, marks);
  });
  if (!isThere) return null;

  const choose = (track: number, index: number) => {
    const [topic, point] = [topics[track], shown[track]?.[index]];
    if (topic === undefined || !point) return;
    setChosen({ topic, seq: point.seq });
    onHover(point.time);
  };
  const leave = () => {
    setChosen(null);
    onHover(null);
  };
  const onPointer = (event: PointerEvent) => {
    const box = canvas.current?.getBoundingClientRect();
    if (!box || !plane) return;
    const found = nearestPoint(shown, plane, event.clientX - box.left, event.clientY - box.top, REACH);
    if (found) choose(found.track, found.index);
    else leave();
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const filled = shown.flatMap((points, track) => (points.length > 0 ? [track] : []));
    const track = Math.max(0, chosen === null ? (filled.at(0) ?? 0) : topics.indexOf(chosen.topic));
    const last = (shown[track]?.length ?? 0) - 1;
    const index = chosen === null ? last : (marks[track] ?? last);
    const leap = event.shiftKey ? 10 : 1;
    const next = (step: number) => filled[(filled.indexOf(track) + step + filled.length) % filled.length] ?? track;
    if (event.key === "ArrowLeft") choose(track, chosen === null ? last : Math.max(0, index - leap));
    else if (event.key === "ArrowRight") choose(track, Math.min(last, index + leap));
    else if (event.key === "Home") choose(track, 0);
    else if (event.key === "End") choose(track, last);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const other = next(event.key === "ArrowDown" ? 1 : -1);
      choose(other, (shown[other]?.length ?? 1) - 1);
    } else if (event.key === "Escape") leave();
    else return;
    event.preventDefault();
  };
  const told = marks.flatMap((index, track) => {
    const point = shown[track]?.[index];
    return point ? [`${names[track]}: ${formatMoment(point.moment)}, ${formatPosition(point)}`] : [];
  });
  return (
    <figure class="track">
      <figcaption>
        <span class="panel-title">{t("Track")}</span>
        {shown.slice(0, PALETTE).map((points, track) => (
          <span key={topics[track]} class="soft num">
            {topics.length > 1 && `${names[track]}: `}
            {points.length === 0
              ? t("nowhere in this time")
              : `${counted(points.length, "point")}, ${formatMetres(lengthOf(points))}`}
          </span>
        ))}
        {topics.length > PALETTE && (
          <span class="soft">
            {t("and")} {topics.length - PALETTE} {t("more")}
          </span>
        )}
      </figcaption>
      <div
        ref={host}
        class="track-plane"
        role="group"
        tabIndex={0}
        aria-label={t("Track. Left and right go from point to point, up and down to another track.")}
        onKeyDown={onKey}
        onBlur={leave}
      >
        <canvas
          ref={canvas}
          role="img"
          aria-label={summary(names, shown)}
          style={{ height: `${height}px` }}
          onPointerMove={onPointer}
          onPointerDown={onPointer}
          onPointerLeave={leave}
        />
      </div>
      <p class="told num" role="status">
        {told.slice(0, 3).join("; ")}
      </p>
    </figure>
  );
}

/** What a sighted reader sees, in words. */
function summary(names: readonly string[], shown: readonly (readonly TrackPoint[])[]): string {
  const parts = shown.slice(0, PALETTE).map((points, track) => {
    const [first, last] = [points[0], points.at(-1)];
    if (!first || !last) return t("{label}: nowhere in this time", { label: names[track] ?? "" });
    return t("{label}: {metres} in {count} points, from {start} at {begin} to {end} at {until}", {
      label: names[track] ?? "",
      metres: formatMetres(lengthOf(points)),
      count: formatCount(points.length),
      start: formatPosition(first),
      begin: formatMoment(first.moment),
      end: formatPosition(last),
      until: formatMoment(last.moment),
    });
  });
  return t("Track, north is up. {tracks}.", { tracks: parts.join("; ") });
}

function draw(
  canvas: HTMLCanvasElement,
  width: number,
  height: number,
  shown: readonly (readonly TrackPoint[])[],
  plane: Plane | null,
  marks: readonly number[],
): void {
  // read, so that another theme draws it anew
  theme.value;
  const context = canvas.getContext("2d");
  if (!context) return;
  const ratio = devicePixelRatio;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = FONT;
  const soft = colour("--soft");
  const ink = colour("--ink");
  if (!plane) {
    context.fillStyle = soft;
    context.fillText(t("No position in this time."), 12, height / 2);
    return;
  }
  context.lineJoin = context.lineCap = "round";
  for (const [track, points] of shown.entries()) {
    const stroke = colour(`--series-${(track % PALETTE) + 1}`);
    context.strokeStyle = context.fillStyle = stroke;
    context.lineWidth = 2;
    context.setLineDash(track >= PALETTE ? [6, 4] : []);
    context.beginPath();
    let [lastX, lastY] = [Number.NaN, Number.NaN];
    for (const [index, point] of points.entries()) {
      const [x, y] = plane.place(point);
      // less than a pixel on isn't seen
      if (index > 0 && index < points.length - 1 && Math.hypot(x - lastX, y - lastY) < 1) continue;
      if (index === 0) context.moveTo(x, y);
      else context.lineTo(x, y);
      [lastX, lastY] = [x, y];
    }
    context.stroke();
    context.setLineDash([]);
    const [first, last] = [points[0], points.at(-1)];
    if (!first || !last) continue;
    // a ring where it starts, a disc where it ends, with words where there is one track
    const [startX, startY] = plane.place(first);
    context.fillStyle = colour("--well");
    dot(context, startX, startY, 5, true);
    const [endX, endY] = plane.place(last);
    context.fillStyle = stroke;
    dot(context, endX, endY, 6, false);
    if (shown.length === 1 && points.length > 1) {
      context.fillStyle = ink;
      context.fillText(t("start"), startX + 10, startY - 6);
      if (Math.hypot(startX - endX, startY - endY) > 30) context.fillText(t("end"), endX + 10, endY - 6);
    }
    const mark = points[marks[track] ?? -1];
    if (mark) {
      const [x, y] = plane.place(mark);
      context.strokeStyle = ink;
      context.fillStyle = stroke;
      dot(context, x, y, 7, true);
    }
  }
  const bar = scaleBar(plane.metresPerPixel, Math.min(160, width / 3));
  const [left, base] = [14, height - 14];
  context.strokeStyle = context.fillStyle = soft;
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(left, base - 5);
  context.lineTo(left, base);
  context.lineTo(left + bar.pixels, base);
  context.lineTo(left + bar.pixels, base - 5);
  context.stroke();
  context.fillText(formatMetres(bar.metres), left + 4, base - 6);
  context.fillText("N ↑", width - 34, 20);
}

function dot(context: CanvasRenderingContext2D, x: number, y: number, radius: number, isRinged: boolean): void {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
  if (isRinged) context.stroke();
}

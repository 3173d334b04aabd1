/**
 * The part of time that a chart shows: the last so many minutes, or a window that was zoomed to.
 *
 * Everything is in milliseconds, moments since 1970. Nothing is shown of the future.
 */

/** What a chart shows at least while it is live. */
const MIN_SPAN = 30_000;
/** What can be zoomed to at least. */
const MIN_ZOOM = 100;

export interface TimeWindow {
  from: number;
  to: number;
}

/** The window that `from` and `to` of an address name; null where they name none. */
export function parseWindow(params: URLSearchParams): TimeWindow | null {
  const from = Number(params.get("from"));
  const to = Number(params.get("to"));
  return from > 0 && to > from ? { from, to } : null;
}

/** The last `span` up to `now`; less where history (from `oldest` on) is younger: an empty half says nothing. */
export function liveWindow(span: number, now: number, oldest: number | null): TimeWindow {
  const shown = oldest === null ? span : Math.min(span, Math.max(MIN_SPAN, (now - oldest) * 1.02));
  return { from: now - shown, to: now };
}

/** A window cut at `now`, in whole milliseconds; null where less is left than can be shown. */
export function cutAt(now: number, { from, to }: TimeWindow): TimeWindow | null {
  const end = Math.min(to, now);
  return end - from >= MIN_ZOOM ? { from: Math.round(from), to: Math.round(end) } : null;
}

/** A window as wide as it was, moved back so that it ends at `now` at the latest. */
export function heldBefore(now: number, { from, to }: TimeWindow): TimeWindow {
  const over = Math.max(0, to - now);
  return { from: from - over, to: to - over };
}

/** The window in which two moments stand at other places, from 0 at its left to 1 at its right end; one: it is moved. */
export function dragged(
  { from, to }: TimeWindow,
  first: { time: number; at: number },
  second?: { time: number; at: number },
): TimeWindow {
  const width =
    second && Math.abs(second.at - first.at) > 0.02
      ? Math.max(MIN_ZOOM, Math.abs((second.time - first.time) / (second.at - first.at)))
      : to - from;
  const left = first.time - first.at * width;
  return { from: left, to: left + width };
}

/** A window `factor` times as wide, moved by `shift` of its present width. */
export function scaled({ from, to }: TimeWindow, factor: number, shift = 0): TimeWindow {
  const width = (to - from) * factor;
  const middle = (from + to) / 2 + shift * (to - from);
  return { from: middle - width / 2, to: middle + width / 2 };
}

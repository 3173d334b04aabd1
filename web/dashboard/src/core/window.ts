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

/** From when on history is needed, and two windows more; null where `begins`, from when on it is here, is early enough. */
export function reachOf(zoomed: TimeWindow | null, begins: number): number | null {
  return zoomed && zoomed.from < begins ? Math.max(0, zoomed.from - 2 * (zoomed.to - zoomed.from)) : null;
}

/** A window cut at `now`, in whole milliseconds; null where less is left than can be shown. */
export function cutAt(now: number, { from, to }: TimeWindow): TimeWindow | null {
  const end = Math.min(to, now);
  return end - from >= MIN_ZOOM ? { from: Math.round(from), to: Math.round(end) } : null;
}

/** A window `factor` times as wide, moved by `shift` of its present width. */
export function scaled({ from, to }: TimeWindow, factor: number, shift = 0): TimeWindow {
  const width = (to - from) * factor;
  const middle = (from + to) / 2 + shift * (to - from);
  return { from: middle - width / 2, to: middle + width / 2 };
}

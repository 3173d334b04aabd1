/** How many messages of each topic a view asks for, and how often it draws them: no more than can be seen. */

/** Readings of a line that one pixel shows: the least and the greatest. */
const PER_PIXEL = 2;
/** The newest reading is drawn again at least so often, whatever the range. */
const LEAST_HZ = 1;
/** The most that the gateway makes. */
const MOST_HZ = 1000;
/** Messages a second that nobody reads one by one; and as many as are few again. */
const BUSY = { from: 200, until: 100 };

/**
 * Messages a second of each topic that a chart can draw; a power of two, so that a window that changes a little asks for
 * nothing else.
 *
 * @param span what its window shows, in milliseconds.
 * @param pixels how wide that is drawn.
 */
export function drawableHz(span: number, pixels: number): number {
  const exact = (PER_PIXEL * pixels * 1000) / Math.max(1, span);
  return Math.min(MOST_HZ, Math.max(LEAST_HZ, 2 ** Math.ceil(Math.log2(exact))));
}

/**
 * What a view asks for, Infinity for every message: one that lists them takes each, until there are too many to read.
 *
 * @param rate messages a second, those that are left out among them.
 * @param isPaced whether fewer are asked for already.
 */
export function paceOf(
  { hasList, rate, isPaced }: { hasList: boolean; rate: number; isPaced: boolean },
  drawable: number,
): number {
  return hasList && rate < (isPaced ? BUSY.until : BUSY.from) ? Number.POSITIVE_INFINITY : drawable;
}

/** How long a picture stands still, in milliseconds: at least, and at most, however slowly it moves. */
const STILL_MS = { least: 250, most: 1000 };

/**
 * How often a chart moves on, in milliseconds: when it has moved by a pixel. Drawing one with many lines takes longer
 * than a frame.
 *
 * @param span what its window shows, in milliseconds.
 * @param pixels how wide that is drawn.
 */
export function beatOf(span: number, pixels: number): number {
  return Math.min(STILL_MS.most, Math.max(STILL_MS.least, span / Math.max(1, pixels)));
}

/** What a chart is drawn as of: it stands still between two beats, whatever comes meanwhile. */
export class Beat {
  /** Milliseconds since 1970. */
  now = Number.NEGATIVE_INFINITY;
  version = 0;

  /**
   * Moves on, when it is time.
   *
   * @param version of what is drawn.
   * @param step from one beat to the next, in milliseconds.
   */
  tick(now: number, version: number, step: number): this {
    // a clock may be set back
    if (Math.abs(now - this.now) < step) return this;
    this.now = now;
    this.version = version;
    return this;
  }
}

/**
 * Learning how often something speaks, so that silence means something.
 *
 * A sensor that reports each ten seconds is late after thirty; one that wakes once an hour is not. The interval is
 * learnt as the median of the last intervals (a pause or a burst doesn't move it), with what the sensor announced as
 * the prior until three intervals have been seen.
 */

const KEPT = 15;
/** Quicker than the announced interval by this factor is a burst. */
const BURST = 10;
/** Late by this many intervals is stale: two reports may be lost, or merely late, without an alarm. */
const STALE_INTERVALS = 3;
/** A sensor each 100 ms isn't stale after 300: networks pause for a second or two. */
const MIN_STALE_MS = 5_000;

export class Rhythm {
  private readonly intervals: number[] = [];
  private last: number | null = null;
  private median: number | null = null;

  /** @param announced what the device says its interval is, in milliseconds; null when it doesn't say. */
  constructor(public announced: number | null = null) {}

  /**
   * Notes an arrival; arrivals out of order are ignored.
   *
   * @param count for how many it stands, where others were left out on the way.
   */
  note(time: number, count = 1): void {
    const last = this.last;
    if (last === null) {
      this.last = time;
      return;
    }
    if (time <= last) return;
    this.last = time;
    this.add((time - last) / count);
  }

  private add(interval: number): void {
    // A device that was cut off hands in what it missed at once: that is no rhythm.
    if (this.announced !== null && interval < this.announced / BURST) return;
    this.intervals.push(interval);
    if (this.intervals.length > KEPT) this.intervals.shift();
    this.median = null;
  }

  /** Puts intervals of the past, in order, before what was noted already: for history that arrives after the news. */
  learn(times: readonly number[]): void {
    const last = this.last;
    const past = times.filter((time) => last === null || time < last);
    const all = last === null ? past : [...past, last];
    const intervals: number[] = [];
    for (let index = 1; index < all.length; index++) {
      const interval = (all[index] ?? 0) - (all[index - 1] ?? 0);
      if (interval > 0 && (this.announced === null || interval >= this.announced / BURST)) intervals.push(interval);
    }
    this.intervals.unshift(...intervals);
    this.intervals.splice(0, Math.max(0, this.intervals.length - KEPT));
    this.last = all[all.length - 1] ?? last;
    this.median = null;
  }

  get lastTime(): number | null {
    return this.last;
  }

  /** True when the interval was seen, false when it is only announced (or unknown). */
  get learnt(): boolean {
    return this.intervals.length >= 3;
  }

  /** The usual time between two arrivals in milliseconds, null while unknown. */
  get interval(): number | null {
    if (!this.learnt) {
      if (this.announced !== null) return this.announced;
      if (this.intervals.length === 0) return null;
    }
    if (this.median === null) {
      const sorted = [...this.intervals].sort((a, b) => a - b);
      const middle = sorted.length >> 1;
      this.median = sorted.length % 2 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
    }
    return this.median;
  }

  /** After how long a silence this is stale, in milliseconds; null while nothing is known. */
  patience(asleep = false): number | null {
    // Who said that it sleeps may sleep for as long as it announced, however often it reports when it is awake.
    const interval = asleep ? Math.max(this.interval ?? 0, this.announced ?? 0) || null : this.interval;
    return interval === null ? null : Math.max(MIN_STALE_MS, interval * STALE_INTERVALS);
  }

  isStale(now: number, asleep = false): boolean {
    const patience = this.patience(asleep);
    return patience !== null && this.last !== null && now - this.last > patience;
  }
}

/** Events per second, decaying with a time constant; counts from before `since` aren't in it. */
export class Rate {
  private level = 0;
  private at = 0;
  private started = 0;

  constructor(private readonly seconds = 10) {}

  note(time: number, count = 1): void {
    // The first event only starts the clock: three events two seconds apart from first to last are one a second.
    if (this.at === 0) {
      this.at = time;
      this.started = time;
      return;
    }
    if (time > this.at) {
      this.level *= Math.exp((this.at - time) / 1000 / this.seconds);
      this.at = time;
    }
    this.level += count;
  }

  /** Goes on from so many a second, as if they had come for long. */
  seed(now: number, perSecond: number): void {
    this.level = perSecond * this.seconds;
    this.at = now;
    this.started = now - 20_000 * this.seconds;
  }

  read(now: number): number {
    if (this.at === 0) return 0;
    const level = this.level * Math.exp(Math.min(0, this.at - now) / 1000 / this.seconds);
    // Young estimates hold less than a full window: without this, a steady rate would seem to climb for half a minute.
    const filled = 1 - Math.exp(-Math.max(1000, now - this.started) / 1000 / this.seconds);
    return level / this.seconds / filled;
  }
}

/** Events per second of many sources: over ten seconds where much comes, over two minutes where that says little. */
export class Flow {
  private readonly quick = new Rate(10);
  private readonly slow = new Rate(120);

  note(time: number, count = 1): void {
    this.quick.note(time, count);
    this.slow.note(time, count);
  }

  seed(now: number, perSecond: number): void {
    this.quick.seed(now, perSecond);
    this.slow.seed(now, perSecond);
  }

  read(now: number): number {
    const slow = this.slow.read(now);
    return slow < 1 ? slow : this.quick.read(now);
  }
}

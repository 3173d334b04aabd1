/** How far this machine's clock is ahead of the gateway's, learnt from the ages of messages. */

/** A clock that differs from the steady one by this much more or less than before was set, in milliseconds. */
const JUMP = 1000;

export class Skew {
  private leastAge = Number.POSITIVE_INFINITY;
  private offset = Number.NaN;
  /** Milliseconds; null while unknown. */
  value: number | null = null;

  /**
   * Takes in a message that came live.
   *
   * @param sent its time, by the gateway's clock.
   * @param now this machine's clock, in milliseconds since 1970.
   * @param steady a clock that nobody sets.
   * @param trip milliseconds to the gateway and back, as far as known.
   */
  note({ sent, now, steady, trip }: { sent: number; now: number; steady: number; trip: number }): void {
    // of a clock that was set what was learnt before says nothing
    if (Math.abs(now - steady - this.offset) > JUMP) this.leastAge = Number.POSITIVE_INFINITY;
    this.offset = now - steady;
    const age = now - sent;
    if (age >= this.leastAge) return;
    this.leastAge = age;
    this.value = age - trip / 2;
  }
}

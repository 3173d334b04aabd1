/** The last few hundred delays of one leg, and their percentiles. */
const KEPT = 400;

export class Delays {
  private readonly kept: number[] = [];
  private next = 0;

  note(milliseconds: number): void {
    if (!Number.isFinite(milliseconds)) return;
    this.kept[this.next] = milliseconds;
    this.next = (this.next + 1) % KEPT;
  }

  /** Nearest rank; null while nothing was measured. */
  percentile(percent: number): number | null {
    if (this.kept.length === 0) return null;
    const sorted = [...this.kept].sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.ceil((percent / 100) * sorted.length) - 1)] ?? null;
  }
}

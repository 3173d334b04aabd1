/** Messages that will not come, added up by reason. */

import type { Gap } from "gateway-live";
import { t } from "./words.ts";

const WORDS: Record<Gap["reason"], string> = {
  evicted: t("older than what the gateway keeps"),
  epoch: t("the gateway was restarted and starts a new history"),
  slow: t("this browser couldn’t keep up"),
  limit: t("more than one replay may hold"),
  crash: t("the gateway ended without warning"),
  reader: t("this page couldn’t keep up"),
};

/** Why messages are missing, in words; a reason that a newer gateway may give as it is. */
export function gapWords(reason: string): string {
  return (WORDS as Record<string, string>)[reason] ?? reason;
}

/** Reasons of what was gone before anybody here asked for it. */
const PAST: ReadonlySet<string> = new Set<Gap["reason"]>(["evicted", "crash"]);

/**
 * Which gaps are losses of this page, and that once: a gap is told to each subscription that it is about, and again
 * whenever a view looks back over it.
 */
export class Ledger {
  private readonly counted = new Map<string, { from: number; to: number }[]>();

  /**
   * Whether a gap is to be counted. What is gone is gone for all who ask for a part of it; what a subscriber was too slow
   * for may be there for another.
   *
   * @param life the life of the gateway's log.
   * @param begun the number in it at which the subscription began; null: unknown.
   */
  isNews({ reason, from, to }: Gap, life: string | null, begun: number | null): boolean {
    if (to === undefined) return true;
    if (PAST.has(reason) && begun !== null && to <= begun) return false;
    const key = `${life} ${reason}`;
    const known = this.counted.get(key) ?? [];
    this.counted.set(key, known);
    const begins = from ?? to - 1;
    const isKnown = (range: { from: number; to: number }) =>
      PAST.has(reason) ? range.from < to && begins < range.to : range.from <= begins && to <= range.to;
    if (known.some(isKnown)) return false;
    known.push({ from: begins, to });
    if (known.length > KEPT) known.shift();
    return true;
  }
}

/** Gaps of a reason that are remembered. */
const KEPT = 1000;

export interface Losses {
  reason: string;
  /** null when at least one gap couldn't say how many. */
  lost: number | null;
  gaps: number;
}

/** The losses with one gap more, which comes last. */
export function addLoss(losses: readonly Losses[], reason: string, lost: number | null): Losses[] {
  const known = losses.find((entry) => entry.reason === reason) ?? { lost: 0, gaps: 0 };
  const sum = known.lost === null || lost === null ? null : known.lost + lost;
  return [...losses.filter((entry) => entry.reason !== reason), { reason, lost: sum, gaps: known.gaps + 1 }];
}

const ARCHIVE_WORDS: Record<string, string> = {
  in_use: t("another gateway has the file open"),
  full: t("the disk is full"),
  read_only: t("the file may not be written"),
  io: t("the disk can’t be read or written"),
  newer: t("a newer version of the gateway made the file"),
  foreign: t("the file is a database of something else"),
  corrupt: t("the file is damaged"),
  slow: t("the disk is too slow"),
};

/** Why the archive doesn't keep what arrives, in words; a reason that a newer gateway may give as it is. */
export function archiveWords(reason: string | null): string {
  return reason === null ? t("nobody knows why") : (ARCHIVE_WORDS[reason] ?? reason);
}

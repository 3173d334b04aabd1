import type { Gap } from "gateway-live";
import { expect, it } from "vitest";
import { addLoss, archiveWords, Ledger, type Losses } from "../src/core/losses.ts";

it("adds losses up by reason, and doesn't make a number of what nobody knows", () => {
  let losses: Losses[] = [];
  for (const [reason, lost] of [
    ["slow", 3],
    ["epoch", null],
    ["slow", 4],
    ["epoch", 5],
  ] as const) {
    losses = addLoss(losses, reason, lost);
  }
  expect(losses).toEqual([
    { reason: "slow", lost: 7, gaps: 2 },
    { reason: "epoch", lost: null, gaps: 2 },
  ]);
});

it("counts a gap once, however many subscriptions are told of it, and none that was there before", () => {
  const ledger = new Ledger();
  const gap = (reason: Gap["reason"], from: number | undefined, to: number | undefined, life = "one", begun = 100) =>
    ledger.isNews(
      { reason, lost: 1, ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) },
      life,
      begun,
    );
  // a view looks back over what is gone
  expect(gap("evicted", 1, 90)).toBe(false);
  expect(gap("crash", 40, 41)).toBe(false);
  // but what one replay can't hold is lost here
  expect(gap("limit", 1, 90)).toBe(true);
  // after a cut two subscriptions are told, one of a part
  expect(gap("evicted", 100, 150)).toBe(true);
  expect(gap("evicted", 120, 150)).toBe(false);
  expect(gap("evicted", 120, 155)).toBe(false);
  expect(gap("slow", 120, 150)).toBe(true);
  expect(gap("slow", 130, 155)).toBe(true);
  expect(gap("slow", 130, 150)).toBe(false);
  expect(gap("evicted", 150, 170)).toBe(true);
  expect(gap("evicted", undefined, 170)).toBe(false);
  // another log has the same numbers
  expect(gap("evicted", 120, 150, "two", 0)).toBe(true);
  // nobody knows where it was
  expect(gap("slow", undefined, undefined)).toBe(true);
  expect(gap("slow", undefined, undefined)).toBe(true);
});

it("says why the archive keeps nothing, of reasons that it doesn't know as well", () => {
  expect(archiveWords("full")).toBe("the disk is full");
  expect(archiveWords("melted")).toBe("melted");
  expect(archiveWords(null)).toBe("nobody knows why");
});

import { expect, it } from "vitest";
import { addLoss, archiveWords, type Losses } from "../src/core/losses.ts";

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

it("says why the archive keeps nothing, of reasons that it doesn't know as well", () => {
  expect(archiveWords("full")).toBe("the disk is full");
  expect(archiveWords("melted")).toBe("melted");
  expect(archiveWords(null)).toBe("nobody knows why");
});

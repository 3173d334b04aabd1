import { expect, it } from "vitest";
import { failureWords, type Sent, sentOf } from "../src/core/sent.ts";

const LOST = "The connection was cut off before an answer came; perhaps it was published";
const entry: Sent = { time: 1, topic: "a", payload: "1", qos: 1, retain: false, outcome: "sent", failed: false };

it("is not on its way for ever after a reload", () => {
  expect(sentOf(JSON.stringify([{ ...entry, outcome: null }, entry]))).toEqual([
    { ...entry, outcome: LOST, failed: true },
    entry,
  ]);
});

it("is nothing where nothing, or something else, was kept", () => {
  for (const text of [null, "", "{}", "7", "[{"]) expect(sentOf(text)).toEqual([]);
});

it("may have been published where no answer came, and was not where it was refused", () => {
  for (const code of ["disconnected", "closed", "timeout"])
    expect(failureWords({ code, message: "" })).toMatch(/; perhaps it was published$/);
  expect(failureWords({ code: "forbidden", message: "", reason: "grant" })).not.toContain("perhaps");
});

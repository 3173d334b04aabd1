import { CLOSE_CODES, ERROR_CODES, GAP_REASONS } from "gateway-live/protocol";
import { afterEach, describe, expect, it } from "vitest";
import { de } from "../src/core/de.ts";
import { gapWords } from "../src/core/losses.ts";
import {
  CLOSE_WORDS,
  closeWords,
  ERROR_WORDS,
  errorWords,
  FAULT_WORDS,
  REASON_WORDS,
  STEP_WORDS,
  stepWords,
  TOLD,
  verdictWords,
} from "../src/core/told.ts";
import { speak } from "../src/core/words.ts";

afterEach(() => speak({}));

describe("what the gateway says", () => {
  it("stands as it came in English, since it names the rule and the value", () => {
    expect(errorWords("bad_topic", "topic filter 'a/#/b': '#' must be the last level")).toBe(
      "topic filter 'a/#/b': '#' must be the last level",
    );
    expect(closeWords(4001, "the token has expired")).toBe("the token has expired");
    expect(stepWords("grant")).toBe("grant");
    expect(verdictWords("messages", "no message to 'a' has come")).toBe("no message to 'a' has come");
    expect(verdictWords(null, "every step is in order")).toBe("every step is in order");
  });
  it("is worded by its code where it came without a text", () => {
    expect(closeWords(4100, null)).toBe("The connection took no data for too long");
    expect(closeWords(1006, null)).toBe("");
    expect(closeWords(null, null)).toBe("");
    expect(errorWords("stopping", "")).toBe("The gateway stops or restarts");
  });
  it("is said in German by its code, with its own text behind", () => {
    speak(de);
    expect(errorWords("limit", "limit: 11 topic filters, at most 10")).toBe(
      "Eine Grenze ist erreicht (limit: 11 topic filters, at most 10)",
    );
    expect(closeWords(1012, "the gateway stops")).toBe("Das Gateway hält an oder startet neu (the gateway stops)");
    expect(verdictWords("grant", "no grant")).toBe("Sie dürfen das nicht lesen");
    expect(verdictWords(null, "every step is in order")).toBe("Jeder Schritt ist in Ordnung");
    expect(stepWords("upstream")).toBe("Broker");
  });
  it("is said by its reason where that says more than the code", () => {
    speak(de);
    expect(errorWords("unauthorized", "the token has expired", "expired")).toBe(
      "Das Token ist abgelaufen (the token has expired)",
    );
    expect(errorWords("unauthorized", "no", "of a newer gateway")).toMatch(/^Ein Token ist nötig/);
  });
  it("stays as it is where its code is unknown, whatever that is called", () => {
    speak(de);
    expect(errorWords("of_a_newer_gateway", "so it is")).toBe("so it is");
    expect(errorWords("constructor", "so it is", "toString")).toBe("so it is");
    expect(closeWords(4999, "so it is")).toBe("so it is");
    expect(stepWords("constructor")).toBe("constructor");
    expect(verdictWords("valueOf", "so it is")).toBe("so it is");
  });
  it("has a German sentence for each code of the protocol", () => {
    expect(Object.keys(ERROR_WORDS).sort()).toEqual([...ERROR_CODES].sort());
    expect(Object.keys(CLOSE_WORDS).sort()).toEqual(Object.keys(CLOSE_CODES).sort());
    for (const text of TOLD) expect(de[text], text).toBeTruthy();
    speak(de);
    for (const code of ERROR_CODES) expect(errorWords(code, "x")).toMatch(/^[A-ZÄÖÜ].{5,} \(x\)$/);
    for (const code of Object.values(CLOSE_CODES)) expect(closeWords(code, "x")).toMatch(/^[A-ZÄÖÜ].{5,} \(x\)$/);
    for (const reason of Object.keys(REASON_WORDS)) expect(errorWords("", "x", reason)).toMatch(/ \(x\)$/);
    for (const step of Object.keys(FAULT_WORDS)) expect(STEP_WORDS).toHaveProperty(step);
    // their words are made when the page starts: the texts are those that it would look up
    for (const reason of GAP_REASONS) expect(de[gapWords(reason)], reason).toBeTruthy();
  });
});

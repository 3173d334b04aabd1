import { expect, it } from "vitest";
import { parseTrend } from "../src/core/trend.ts";

it("reads states, and numbers that are texts", () => {
  const rows = ["true", "OFF", "19.2", "4f", "null", "0x10", '"a,5"'].map(
    (cell, index) => `2026-05-04T10:00:0${index}Z,${index},t,${cell}`,
  );
  expect(parseTrend(["time,seq,topic,a", ...rows].join("\r\n")).map(({ value }) => value)).toEqual([1, 0, 19.2]);
});

it("reads times and values, and leaves out what has none", () => {
  const csv = [
    "time,seq,topic,temperature",
    "2026-05-04T10:00:00.250Z,1,sensors/a/state,21.5",
    '2026-05-04T10:00:01.250Z,2,"a,b",-3',
    "2026-05-04T10:00:02.250Z,3,sensors/a/state,",
    '2026-05-04T10:00:03.250Z,4,sensors/a/state,"warm, they say"',
    "",
  ].join("\r\n");
  expect(parseTrend(csv)).toEqual([
    { time: Date.UTC(2026, 4, 4, 10, 0, 0, 250), value: 21.5 },
    { time: Date.UTC(2026, 4, 4, 10, 0, 1, 250), value: -3 },
  ]);
  expect(parseTrend("")).toEqual([]);
});

import { numberOfText } from "./values.ts";

/** History as CSV (time, seq, topic, value), read for a sparkline. Rows without a number are left out. */
export function parseTrend(csv: string): { time: number; value: number }[] {
  const points: { time: number; value: number }[] = [];
  const lines = csv.split("\n");
  for (let index = 1; index < lines.length; index++) {
    const line = lines[index] ?? "";
    // The time comes first and the value last; a topic in between may be quoted and hold commas.
    const first = line.indexOf(",");
    const last = line.lastIndexOf(",");
    if (first < 0 || last === first) continue;
    const value = numberOfText(line.slice(last + 1).replace(/\r$/, ""));
    const time = Date.parse(line.slice(0, first));
    if (value !== null && Number.isFinite(time)) points.push({ time, value });
  }
  return points;
}

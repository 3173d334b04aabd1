/**
 * Finding the numbers in any payload.
 *
 * A payload may be a plain number, text that holds one, or JSON of any depth: each number becomes a *field*, named by
 * its path (`paths.ts`), and "" when the payload itself is the number. States such as true, ON and closed are drawn as 1
 * and 0. The gateway's `core/fields.py` sees the same; both read `tests/paths.json`. Nothing here knows what a sensor is.
 */

import { numberText } from "./format.ts";
import { imageWord } from "./images.ts";
import { type Field, parsePath, pathInto, type Step } from "./paths.ts";
import { t } from "./words.ts";

export type { Field } from "./paths.ts";

/** Deeper or wider than this is data, not readings: it would bury the fields that people look for. */
const MAX_DEPTH = 6;
const MAX_ITEMS = 16;
const MAX_FIELDS = 64;

/** Beyond it one can't calculate. */
const LARGEST = 1e300;

/** A number with at most a unit behind it. */
const NUMBER_WITH_UNIT =
  /^[ \t\r\n\u00a0]*([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)[ \t\r\n\u00a0]*([^0-9 \t\r\n\u00a0.,:;/-][^0-9 \t\r\n\u00a0]{0,8})?[ \t\r\n\u00a0]*$/u;

const CLEAR_UNITS =
  "°C °F ° % ‰ mV kV mA kA mW kW MW GW Wh kWh MWh mWh VA kVA var kvar varh kvarh Ah mAh Hz kHz MHz GHz " +
  "Pa hPa kPa MPa mbar bar psi mmHg inHg lx lux lm ppm ppb pH µg/m³ μg/m³ ug/m3 mg/m³ mg/m3 mm cm km m² " +
  "m³ m3 ft mi ml mL L/min l/min L/h l/h m³/h m3/h m/s km/h mph kn ms µs min dBm mg kg kJ MJ Nm rad rpm " +
  "Ω kΩ MΩ S/m µS/cm μS/cm W/m² W/m2 lbs";
const SPACED_UNITS = "V A W K J L l m s h d g t dB dBA";

/** Units that may follow a number within JSON. Before some is a space: "5A" and "12dB" may be hexadecimal. */
export const KNOWN_UNITS: ReadonlySet<string> = new Set(`${CLEAR_UNITS} ${SPACED_UNITS}`.split(" "));

const oneOf = (units: string) => units.replaceAll(" ", "|");

/**
 * Inside JSON a text counts only when all of it is a number, perhaps with a known unit: "4f" there is an identifier, not
 * four of something.
 */
const PLAIN_NUMBER = new RegExp(
  `^([-+]?(?:[0-9]+\\.?[0-9]*|\\.[0-9]+)(?:[eE][-+]?[0-9]+)?)(?:[ \u00a0]?(${oneOf(CLEAR_UNITS)})|[ \u00a0](${oneOf(SPACED_UNITS)}))?$`,
  "u",
);
const MAX_NUMBER_TEXT = 40;

const usable = (value: number): number | null => (Math.abs(value) < LARGEST ? value : null);

/** The number in a text such as "21.5" or "21.5 °C"; null when it isn't one number with at most a unit. */
export function numberInText(text: string): number | null {
  const match = text.length > MAX_NUMBER_TEXT ? null : NUMBER_WITH_UNIT.exec(text);
  return match ? usable(Number(match[1])) : null;
}

/** The unit that stands behind a number in a text of a payload, by its field; "" where none does. */
export function unitIn(payload: unknown, field: Field): string {
  let value = payload;
  for (const step of field === "" ? [] : (parsePath(field) ?? [])) {
    if (value === null || typeof value !== "object") return "";
    value = (value as Record<string | number, unknown>)[step];
  }
  if (typeof value !== "string" || value.length > MAX_NUMBER_TEXT) return "";
  const match = (field === "" ? NUMBER_WITH_UNIT : PLAIN_NUMBER).exec(value);
  return match?.[2] ?? match?.[3] ?? "";
}

/** States as 1 and 0, as plugs, contacts and motion sensors send them. */
const STATES: ReadonlyMap<string, number> = new Map([
  ["on", 1],
  ["off", 0],
  ["true", 1],
  ["false", 0],
  ["open", 1],
  ["closed", 0],
  ["online", 1],
  ["offline", 0],
]);
const MAX_STATE_TEXT = 16;

function stateInText(text: string): number | null {
  return text.length > MAX_STATE_TEXT
    ? null
    : (STATES.get(text.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, "").toLowerCase()) ?? null);
}

/** What a text within JSON stands for in a chart: a number, or a state; null for others. */
export function numberOfText(text: string): number | null {
  const match = text.length > MAX_NUMBER_TEXT ? null : PLAIN_NUMBER.exec(text);
  return match ? usable(Number(match[1])) : stateInText(text);
}

function scalar(value: unknown, depth: number): number | null {
  if (typeof value === "number") return usable(value);
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value !== "string") return null;
  return depth === 0 ? (numberInText(value) ?? stateInText(value)) : numberOfText(value);
}

/** Calls `found` for each numeric field of a payload, in the payload's order. */
export function eachNumber(payload: unknown, found: (field: Field, value: number) => void): void {
  let left = MAX_FIELDS;
  const walk = (value: unknown, path: Field, depth: number): void => {
    if (left <= 0) return;
    if (value !== null && typeof value === "object") {
      if (depth >= MAX_DEPTH) return;
      if (Array.isArray(value)) {
        const count = Math.min(value.length, MAX_ITEMS);
        for (let index = 0; index < count; index++) walk(value[index], pathInto(path, index), depth + 1);
        return;
      }
      // no path leads to a member without a name
      for (const [key, inner] of Object.entries(value)) if (key !== "") walk(inner, pathInto(path, key), depth + 1);
      return;
    }
    const number = scalar(value, depth);
    if (number === null) return;
    left--;
    found(path, number);
  };
  walk(payload, "", 0);
}

/** What numbers, dates or names a message or its sender: nobody opens a chart to see it. */
const BOOKKEEPING =
  /^(ts|tst|time|timestamp|seq|boot|uptime|uptimesec|id|counter|millis|schema|interval|rssi|linkquality|version|_type|_id|tid|created_at)$/i;

/** Whether a member of a payload is bookkeeping by its name. */
export const isBookkeeping = (name: string): boolean => BOOKKEEPING.test(name);

/** Parts of a position: a track shows where it is, no chart of them does. */
const POSITION = /^(latitude|longitude|lat|lon|lng|coordinates|acc|vac|accuracy|gps_accuracy)$/i;

/** Names that people look for first, most wanted first. */
const WANTED = "temperature temp value humidity co2 power pressure level moisture illuminance voltage vibration".split(
  " ",
);

const ranks = new Map<Field, number>();

/** How much a field wants to be looked at: lower is sooner. */
export function fieldRank(field: Field): number {
  let rank = ranks.get(field);
  if (rank === undefined) {
    rank = rankOf(field === "" ? [] : (parsePath(field) ?? [field]));
    if (ranks.size >= 10_000) ranks.clear();
    ranks.set(field, rank);
  }
  return rank;
}

function rankOf(steps: readonly Step[]): number {
  if (steps.length === 0) return 0;
  const names = steps.filter((step) => typeof step === "string").map((name) => name.toLowerCase());
  const last = names[names.length - 1];
  if (last === undefined) return 100;
  if (BOOKKEEPING.test(last)) return 1000;
  if (POSITION.test(last) || names.some((name) => name.startsWith("battery"))) return 500;
  const place = WANTED.indexOf(last);
  return place < 0 ? 100 : 10 + place;
}

/** The number of a payload that is looked for first; of those that are looked for alike the first in the payload. */
export function firstNumber(payload: unknown): Field | null {
  let best: Field | null = null;
  eachNumber(payload, (field) => {
    if (best === null || fieldRank(field) < fieldRank(best)) best = field;
  });
  return best;
}

/** Panels that are drawn before anyone chose, where each has few lines. */
const PANELS = 3;

const lastName = (field: Field): string =>
  (parsePath(field) ?? [field]).filter((step) => typeof step === "string").at(-1) ?? "";

/** Whether a field is part of a position by its name. */
export const isPartOfPosition = (field: Field): boolean => POSITION.test(lastName(field));

/** Whether there is a position among some fields: a latitude alone may be something else. */
function isPosition(fields: readonly Field[]): boolean {
  const has = (names: RegExp) => fields.some((field) => names.test(lastName(field)));
  return (has(/^lat(itude)?$/i) && has(/^(lon(gitude)?|lng)$/i)) || has(/^coordinates$/i);
}

/**
 * What is drawn of the offered fields before anyone chose: the wanted readings, or whatever there is.
 *
 * @param isService whether a field is about the sensor itself.
 */
export function defaultFields(
  offered: readonly Field[],
  topics: number,
  isService: (field: Field) => boolean = () => false,
): Field[] {
  const wanted = offered.filter((field) => fieldRank(field) < 500 && !isService(field));
  // where nothing but a position comes, its track is what there is to see
  const pool = wanted.length > 0 || isPosition(offered) ? wanted : offered;
  // With many topics each panel is full of lines: one is enough to begin with.
  return pool.slice(0, topics > 3 ? 1 : PANELS);
}

/** Fields in the order in which they are offered. */
export function sortFields(fields: Iterable<Field>): Field[] {
  return [...fields].sort((a, b) => fieldRank(a) - fieldRank(b) || (a < b ? -1 : a > b ? 1 : 0));
}

/**
 * A payload on one line, cut to `limit` characters, for lists: what a JSON object says first, its clocks and counters
 * last. It is a summary to glance at; the payload itself is shown where there is room.
 */
export function oneLine(payload: unknown, limit = 160): string {
  let text: string;
  if (typeof payload === "string") text = payload.slice(0, limit * 2);
  else if (payload !== null && typeof payload === "object" && !Array.isArray(payload)) {
    const entries = Object.entries(payload);
    const said = entries.filter(([key]) => !BOOKKEEPING.test(key));
    const kept = entries.filter(([key]) => BOOKKEEPING.test(key));
    text = [...said, ...kept]
      .slice(0, 40)
      .map(([key, value]) => `${key} ${typeof value === "string" ? value.slice(0, limit) : jsonText(value)}`)
      .join(", ");
  } else text = jsonText(payload);
  text = text.replace(/\s+/g, " ").trim();
  return text.length > limit ? `${text.slice(0, limit - 1)}…` : text;
}

/** JSON on one line, with numbers marked that were rounded when the payload was read. */
function jsonText(value: unknown): string {
  if (typeof value === "number") return numberText(value);
  if (value === null || typeof value !== "object") return JSON.stringify(value) ?? "";
  if (Array.isArray(value)) return `[${value.map(jsonText).join(",")}]`;
  const members = Object.entries(value).map(([key, inner]) => `${JSON.stringify(key)}:${jsonText(inner)}`);
  return `{${members.join(",")}}`;
}

/** A payload in a list: its line, or in words what has none. */
export function summary(payload: unknown, encoding: string | undefined, limit: number): string {
  if (encoding !== undefined) {
    const picture = typeof payload === "string" ? imageWord(payload) : null;
    return picture === null ? "(binary)" : `(${picture} picture)`;
  }
  return payload === "" ? "(empty)" : oneLine(payload, limit);
}

/** Names that are not words; `gateway/devices/model.py` has the same. */
const LABELS: Readonly<Record<string, string>> = {
  co2: "CO₂",
  eco2: "eCO₂",
  pm1: "PM1",
  pm10: "PM10",
  pm25: "PM2.5",
  tvoc: "TVOC",
  voc: "VOC",
  rssi: t("Signal"),
  ph: "pH",
  uv: "UV",
};

/** "signal_strength" as "Signal strength"; "" (the payload itself) as "value". */
export function fieldLabel(field: Field): string {
  if (field === "") return "value";
  const known = LABELS[field.toLowerCase()];
  if (known !== undefined) return known;
  const text = field.replace(/\\(.)/g, "$1").replace(/_/g, " ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}

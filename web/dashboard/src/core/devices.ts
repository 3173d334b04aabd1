/**
 * What is known of each device, from sensors/<id>/meta, status and state, and of others from what the gateway tells of
 * them: nothing is guessed that isn't said so. It is long because a fleet has one state, which both ways of telling fill
 * and all lists of the page read.
 */
import {
  type Announced,
  type FieldValue,
  filterOf,
  type Place,
  pictureOf,
  placesOf,
  readingAt,
  topicsOf,
} from "./announced.ts";
import type { Columns } from "./columns.ts";
import { decimalsOf } from "./format.ts";
import { stepText } from "./paths.ts";
import { Rhythm } from "./rhythm.ts";
import { compareNames } from "./tree.ts";
import { Trend, timesOf } from "./trends.ts";
import { eachNumber, type Field, fieldLabel, fieldRank } from "./values.ts";
import { t } from "./words.ts";

/** What a device is: as it says itself, but a device that calls itself online and is overdue is stale. */
export type Status = "online" | "sleeping" | "stale" | "offline" | "unknown";

export const STATUSES: readonly Status[] = ["online", "sleeping", "stale", "offline", "unknown"];

export interface FieldMeta {
  unit?: string;
  deviceClass?: string;
  min?: number;
  max?: number;
}

const TOPIC = /^sensors\/([^/]+)\/(state|status|meta)$/;
const HIDDEN = new Set(["ts", "seq", "boot"]);
const MAX_READINGS = 24;

export class Device {
  name: string | null = null;
  model: string | null = null;
  firmware: string | null = null;
  simulated = false;
  /** The retained status as it was sent; null when none came. */
  said: string | null = null;
  fields = new Map<Field, FieldMeta>();
  readings = new Map<Field, number>();
  readonly rhythm = new Rhythm();
  lastTime: number | null = null;
  boot: number | null = null;
  /** Messages since the page opened that can't be read as readings. */
  broken = 0;
  lastProblem: string | null = null;
  /** The trend that is shown; history is in it when `history` says "full". */
  trend: Trend | null = null;
  history: "none" | "loading" | "full" | "failed" = "none";

  area = "";
  kind = "";
  /** Where its values are, of a device that the gateway told of; null where it speaks as our sensors do. */
  places: Map<Field, Place & { field: { id: string } }> | null = null;
  /** The topic in which its newest picture is; null where it sends none. */
  picture: string | null = null;

  /** Whether a message lacked what another one of its topic has: one that is left out takes that along. */
  speaksInParts = false;

  constructor(readonly id: string) {}

  /** Whether its messages have only what changed, as those of Sparkplug: none may be left out, nor stands for all. */
  get isPartial(): boolean {
    return [...(this.places?.values() ?? [])].some(({ metric }) => metric !== null);
  }

  /** Where a field is: the topic and the path in its payload. */
  place(field: Field): { topic: string; path: Field; scale: number; offset: number } {
    return this.places?.get(field) ?? { topic: `sensors/${this.id}/state`, path: field, scale: 1, offset: 0 };
  }

  /** The filter by which all its values are seen; null where there is none but everything. */
  get filter(): string | null {
    if (this.places === null) return `sensors/${this.id}/state`;
    return filterOf([...this.places.values()].map(({ topic }) => topic));
  }

  label(field: Field): string {
    return this.places?.get(field)?.label ?? fieldLabel(field);
  }

  get title(): string {
    return this.name ?? this.id;
  }

  status(now: number): Status {
    // by its project's own rule
    if (this.places !== null) return STATUSES.find((status) => status === this.said) ?? "unknown";
    if (this.said === "offline") return "offline";
    if (this.said === "sleeping") return this.rhythm.isStale(now, true) ? "stale" : "sleeping";
    // A retained "online" outlives what said it: who never reported since is not known to be there.
    if (this.lastTime === null) return "unknown";
    if (this.rhythm.isStale(now)) return "stale";
    // Reports without a status topic: something is there, and that is what "online" means to a reader.
    return "online";
  }

  /** A percentage, or null when the device reports none. */
  get battery(): number | null {
    return this.byClass("battery", /^battery$/);
  }

  /** dBm, or null. */
  get signal(): number | null {
    return this.byClass("signal_strength", /^rssi$/);
  }

  private byClass(deviceClass: string, name: RegExp): number | null {
    for (const [field, value] of this.readings) {
      if (this.fields.get(field)?.deviceClass === deviceClass || name.test(field)) return value;
    }
    return null;
  }

  /** Readings to show, most wanted first; battery and signal have places of their own. */
  shown(): [Field, number][] {
    return [...this.readings]
      .filter(([field]) => {
        const deviceClass = this.fields.get(field)?.deviceClass;
        if (deviceClass === "battery" || deviceClass === "signal_strength") return false;
        return fieldRank(field) < 500;
      })
      .sort(([a], [b]) => fieldRank(a) - fieldRank(b));
  }

  unit(field: Field): string {
    return this.fields.get(field)?.unit ?? "";
  }
}

function record(value: unknown): Record<string, unknown> | null {
  return value !== null && typeof value === "object" && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : null;
}

const text = (value: unknown): string | null => (typeof value === "string" && value !== "" ? value : null);
const number = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isFinite(value) ? value : undefined;

/** The fields that a meta payload describes; anything malformed is left out. */
export function fieldsOfMeta(payload: unknown): Map<Field, FieldMeta> {
  const fields = new Map<Field, FieldMeta>();
  const described = record(record(payload)?.fields);
  for (const [field, value] of Object.entries(described ?? {})) {
    const entry = record(value);
    if (!entry) continue;
    const meta: FieldMeta = {};
    const unit = text(entry.unit);
    const deviceClass = text(entry.device_class);
    const min = number(entry.min);
    const max = number(entry.max);
    if (unit) meta.unit = unit;
    if (deviceClass) meta.deviceClass = deviceClass;
    if (min !== undefined) meta.min = min;
    if (max !== undefined) meta.max = max;
    // it may be meant as a path or as a name
    fields.set(field, meta);
    fields.set(stepText(field), meta);
  }
  return fields;
}

interface FleetMessage {
  topic: string;
  payload: unknown;
  encoding?: string | undefined;
  time: number;
  skipped?: number | undefined;
}

export class Fleet {
  readonly devices = new Map<string, Device>();
  /** Decimals of each field, the same for all devices, so that values stand under each other and keep their width. */
  readonly decimals = new Map<Field, number>();
  /** Grows with each change that a list may show. */
  version = 0;
  /** Who reads a topic, of those that the gateway told of. */
  private readonly readers = new Map<string, Set<Device>>();

  /** @param trendField which field the sparklines show; null: each device's most wanted one. */
  constructor(public trendField: Field | null = null) {}

  /** Forgets everything. */
  clear(): void {
    this.devices.clear();
    this.readers.clear();
    this.decimals.clear();
    this.version++;
  }

  /** Takes in one message; false when it isn't about a device. */
  note(message: FleetMessage): boolean {
    const readers = this.readers.get(message.topic);
    for (const device of readers ?? []) this.notePlaces(device, message);
    const match = TOPIC.exec(message.topic);
    const id = match?.[1];
    if (!id) return readers !== undefined;
    let device = this.devices.get(id);
    if (!device) {
      // An empty retained message is how a topic is deleted: it isn't a device.
      if (message.payload === "") return true;
      device = new Device(id);
      this.devices.set(id, device);
    }
    switch (match[2]) {
      case "meta":
        this.noteMeta(device, message.payload);
        break;
      case "status":
        device.said = typeof message.payload === "string" && message.payload !== "" ? message.payload : null;
        break;
      default:
        this.noteState(device, message);
    }
    this.version++;
    return true;
  }

  /** Takes in a device that the gateway tells of. */
  announce(told: Announced): void {
    const own = told.announced_by[0] === "meta" ? told.id.replace(/^sensors_/, "") : null;
    let device = this.devices.get(own ?? told.id);
    if (!device) {
      device = new Device(own ?? told.id);
      this.devices.set(device.id, device);
    }
    device.area = told.area;
    device.kind = told.kind;
    this.version++;
    // its own messages say the rest
    if (own !== null) return;
    this.stopReading(device);
    device.name = text(told.name);
    device.model = text(told.model);
    device.firmware = text(told.version);
    device.said = told.availability;
    if (told.seen !== null) device.lastTime = Math.max(device.lastTime ?? 0, told.seen);
    device.picture = pictureOf(told);
    const places = placesOf(told);
    device.places = places;
    device.fields = new Map();
    for (const [name, { field }] of places) {
      const meta: FieldMeta = {};
      if (field.unit !== "") meta.unit = field.unit;
      if (field.device_class !== "") meta.deviceClass = field.device_class;
      device.fields.set(name, meta);
    }
    for (const topic of topicsOf([...places.values()])) {
      const readers = this.readers.get(topic) ?? new Set();
      this.readers.set(topic, readers.add(device));
    }
    for (const field of device.readings.keys()) if (!places.has(field)) device.readings.delete(field);
  }

  /** What a topic's value is called, by the one device that has it; null where none or several do. */
  nameOf(topic: string): string | null {
    const [device, ...others] = this.readers.get(topic) ?? [];
    if (!device || others.length > 0) return null;
    const here = [...(device.places?.values() ?? [])].filter((place) => place.topic === topic);
    const isAll = here.length === device.places?.size;
    return isAll || here.length !== 1 ? device.title : `${device.title} ${here[0]?.label}`;
  }

  /** The devices that have a value in a topic. */
  ownersOf(topic: string): Device[] {
    return [...(this.readers.get(topic) ?? [])];
  }

  /** The unit of what stands at a path in topics; "" where nobody says it, or not all say the same. */
  unitAt(topics: Iterable<string>, path: Field): string {
    const units = new Set<string>();
    // what is scaled has the unit of what is made of it
    for (const topic of topics)
      for (const device of this.readers.get(topic) ?? [])
        for (const [name, place] of device.places ?? [])
          if (place.topic === topic && place.path === path && place.metric === null)
            units.add(place.scale === 1 && place.offset === 0 ? device.unit(name) : "");
    return units.size === 1 ? ([...units][0] ?? "") : "";
  }

  /** A device that the gateway knows no longer. */
  forget(id: string): void {
    const device = this.devices.get(id) ?? this.devices.get(id.replace(/^sensors_/, ""));
    if (!device) return;
    this.stopReading(device);
    this.devices.delete(device.id);
    this.version++;
  }

  /** Takes what the gateway knows of values that are in no message that has come. */
  fill(device: Device, values: readonly FieldValue[]): void {
    const known = new Map(values.map(({ id, value }) => [id, value]));
    for (const [field, place] of device.places ?? []) {
      if (place.metric === null || device.readings.has(field)) continue;
      const value = readingAt(place, { values: { [place.metric]: known.get(place.field.id) } });
      if (value !== null) device.readings.set(field, value);
    }
  }

  private stopReading(device: Device): void {
    for (const topic of topicsOf([...(device.places?.values() ?? [])])) {
      const readers = this.readers.get(topic);
      readers?.delete(device);
      if (readers?.size === 0) this.readers.delete(topic);
    }
  }

  private notePlaces(device: Device, message: FleetMessage): void {
    device.lastTime = Math.max(device.lastTime ?? 0, message.time);
    device.rhythm.note(message.time, 1 + (message.skipped ?? 0));
    if (message.encoding !== undefined) return;
    for (const [field, place] of device.places ?? []) {
      if (place.topic !== message.topic && place.birth !== message.topic) continue;
      const value = readingAt(place, message.payload);
      if (value === null) {
        const isLeftOut = (message.skipped ?? 0) > 0 || device.readings.has(field);
        device.speaksInParts ||= isLeftOut && place.steps.length > 0 && record(message.payload) !== null;
        continue;
      }
      device.readings.set(field, value);
      const decimals = Math.min(2, decimalsOf(value));
      if (decimals > (this.decimals.get(field) ?? -1)) this.decimals.set(field, decimals);
      if (field === this.trendOf(device)) this.push(device, field, message, value);
    }
    this.version++;
  }

  private push(device: Device, field: Field, message: FleetMessage, value: number): void {
    if (!device.trend || device.trend.field !== field) device.trend = new Trend(message.topic, field);
    device.trend.note(message.time, value);
  }

  private noteMeta(device: Device, payload: unknown): void {
    const meta = record(payload);
    if (!meta) return;
    device.name = text(meta.name);
    device.model = text(meta.model);
    device.firmware = text(meta.firmware);
    device.simulated = meta.simulated === true;
    const interval = number(meta.interval);
    device.rhythm.announced = interval !== undefined && interval > 0 ? interval * 1000 : null;
    device.fields = fieldsOfMeta(payload);
  }

  private noteState(device: Device, message: FleetMessage): void {
    device.lastTime = message.time;
    device.rhythm.note(message.time, 1 + (message.skipped ?? 0));
    const state = record(message.payload);
    const readings = new Map<Field, number>();
    // base64 may look like a number
    const payload = message.encoding === undefined ? message.payload : null;
    eachNumber(payload, (field, value) => {
      if (HIDDEN.has(field) || readings.size >= MAX_READINGS) return;
      readings.set(field, value);
      const decimals = Math.min(2, decimalsOf(value));
      if (decimals > (this.decimals.get(field) ?? -1)) this.decimals.set(field, decimals);
    });
    if (!state && readings.size === 0) {
      device.broken++;
      device.lastProblem = t("neither a JSON object nor a number");
      return;
    }
    device.lastProblem = null;
    device.boot = number(state?.boot) ?? null;
    device.readings = readings;
    const field = this.trendOf(device);
    const value = field === null ? undefined : readings.get(field);
    if (value !== undefined) this.push(device, field ?? "", message, value);
  }

  /** The field that a device's sparkline shows; null when it has none. */
  trendOf(device: Device): Field | null {
    if (this.trendField !== null && device.readings.has(this.trendField)) return this.trendField;
    if (this.trendField !== null && device.fields.has(this.trendField)) return this.trendField;
    return device.shown()[0]?.[0] ?? null;
  }

  /**
   * Puts a device's past before what came meanwhile.
   *
   * @param columns null where nothing of it is kept.
   * @param askedAt what came before is in it.
   */
  fillTrend(device: Device, field: Field, columns: Columns | null, askedAt: number): void {
    device.history = "full";
    this.version++;
    if (columns === null) return;
    // History teaches the rhythm as well: a device that spoke each ten seconds until an hour ago is stale at once.
    if (!device.rhythm.learnt) device.rhythm.learn(timesOf(columns));
    const { topic, scale, offset } = device.place(field);
    const trend = Trend.of(topic, field, columns, (value) => value * scale + offset);
    const live = device.trend?.field === field ? device.trend.series : null;
    for (let index = live?.indexAt(askedAt) ?? 0; index < (live?.length ?? 0); index++) {
      trend.note(live?.time(index) ?? 0, live?.value(index) ?? 0);
    }
    device.trend = trend;
  }

  setTrendField(field: Field | null): void {
    if (this.trendField === field) return;
    this.trendField = field;
    for (const device of this.devices.values()) {
      device.trend = null;
      device.history = "none";
    }
    this.version++;
  }

  /** Fields that any device reports, most wanted first, with how many devices have them. */
  fieldCounts(): Map<Field, number> {
    const counts = new Map<Field, number>();
    for (const device of this.devices.values()) {
      for (const [field] of device.shown()) counts.set(field, (counts.get(field) ?? 0) + 1);
    }
    return new Map([...counts].sort(([a], [b]) => fieldRank(a) - fieldRank(b)));
  }

  /** The same, with devices that have several of a quantity counted under its name, too. */
  quantityCounts(): Map<Field, number> {
    const counts = this.fieldCounts();
    for (const device of this.devices.values()) {
      const quantities = new Set([...(device.places?.values() ?? [])].map(({ quantity }) => quantity ?? ""));
      for (const quantity of quantities)
        if (quantity !== "" && !device.readings.has(quantity)) counts.set(quantity, (counts.get(quantity) ?? 0) + 1);
    }
    return new Map([...counts].sort(([a], [b]) => fieldRank(a) - fieldRank(b)));
  }
}

export type SortKey = "name" | "status" | "battery" | "signal" | "seen";

export const SORT_KEYS: readonly SortKey[] = ["name", "status", "battery", "signal", "seen"];

/** By what a list is put together before it is sorted. */
export type GroupKey = "area" | "kind";

export const GROUP_KEYS: readonly GroupKey[] = ["area", "kind"];

/** Trouble first, then what is well. */
const STATUS_ORDER: Record<Status, number> = { offline: 0, stale: 1, unknown: 2, sleeping: 3, online: 4 };

export interface Query {
  text: string;
  status: Status | null;
  sort: SortKey;
  descending: boolean;
  group?: GroupKey | null;
}

export interface Listed {
  device: Device;
  status: Status;
}

/** The devices that a query shows, in its order, and how many there are of each status whatever the status filter. */
export function listDevices(
  fleet: Fleet,
  query: Query,
  now: number,
): { rows: Listed[]; counts: Record<Status, number> } {
  const counts: Record<Status, number> = { online: 0, sleeping: 0, stale: 0, offline: 0, unknown: 0 };
  const words = query.text.toLowerCase().split(/\s+/).filter(Boolean);
  const rows: Listed[] = [];
  for (const device of fleet.devices.values()) {
    if (words.length > 0) {
      const about =
        `${device.id} ${device.name ?? ""} ${device.model ?? ""} ${device.area} ${device.kind}`.toLowerCase();
      if (!words.every((word) => about.includes(word))) continue;
    }
    const status = device.status(now);
    counts[status]++;
    if (query.status !== null && status !== query.status) continue;
    rows.push({ device, status });
  }
  const by = (a: Listed, b: Listed) =>
    compareNames(a.device.title, b.device.title) || compareNames(a.device.id, b.device.id);
  /** What isn't known goes to the end in either direction. */
  const numeric = (pick: (listed: Listed) => number | null) => (a: Listed, b: Listed) => {
    const x = pick(a);
    const y = pick(b);
    if (x === null || y === null) return x === y ? 0 : x === null ? 1 : -1;
    return query.descending ? y - x : x - y;
  };
  const compare: Record<SortKey, (a: Listed, b: Listed) => number> = {
    name: (a, b) => (query.descending ? by(b, a) : by(a, b)),
    status: (a, b) => (query.descending ? -1 : 1) * (STATUS_ORDER[a.status] - STATUS_ORDER[b.status]),
    battery: numeric((listed) => listed.device.battery),
    signal: numeric((listed) => listed.device.signal),
    seen: numeric((listed) => (listed.device.lastTime === null ? null : -listed.device.lastTime)),
  };
  const chosen = compare[query.sort];
  const { group } = query;
  /** Those of which nobody says it go to the end. */
  const together = (a: Listed, b: Listed) => {
    const x = group ? a.device[group] : "";
    const y = group ? b.device[group] : "";
    return x === y ? 0 : x === "" ? 1 : y === "" ? -1 : compareNames(x, y);
  };
  rows.sort((a, b) => together(a, b) || chosen(a, b) || by(a, b));
  return { rows, counts };
}

/** Wi-Fi strength as bars from 0 to 4; the limits are the usual ones of access points (−55, −65, −75, −85 dBm). */
export function signalBars(dbm: number): number {
  if (dbm >= -55) return 4;
  if (dbm >= -65) return 3;
  if (dbm >= -75) return 2;
  return dbm >= -85 ? 1 : 0;
}

/**
 * Devices as the gateway tells them (`/devices`): whoever made them, with names, units and where each value is. What a
 * payload says of a field is found here; which devices there are is for `devices.ts`.
 */
import type { Command } from "./commands.ts";
import { type Field, parsePath, type Step } from "./paths.ts";
import { numberInText, numberOfText } from "./values.ts";

export interface AnnouncedField {
  id: string;
  name: string;
  kind: string;
  unit: string;
  device_class: string;
  topic: string;
  path: string | null;
  scale?: number;
  offset?: number;
  metric?: string;
  diagnostic?: boolean;
}

export interface Announced {
  id: string;
  name: string;
  kind: string;
  model: string;
  area: string;
  version: string;
  announced_by: string[];
  availability: string;
  seen: number | null;
  fields: AnnouncedField[];
  commands: Command[];
  /** The topics that announce it and no other; an older gateway doesn't tell them. */
  announcements?: string[];
}

/** The newest value of a field, as the gateway has read it; null where there is none. */
export interface FieldValue {
  id: string;
  value: unknown;
  time: number | null;
}

/** One device with its values. */
export interface AnnouncedDevice extends Announced {
  manufacturer: string;
  values: FieldValue[];
}

/** A value of a device: what it is called, and where it is. */
export interface Place {
  topic: string;
  path: Field;
  steps: readonly Step[];
  scale: number;
  offset: number;
  metric: string | null;
  /** Where a metric of Sparkplug stands, too: in what announces it, with its value of then. */
  birth?: string;
  label: string;
  /** What it is one of several of, by the name that the only one would have; "" where it is none of several. */
  quantity?: Field;
}

/** Home Assistant's words to the names by which readings of all devices are put together. */
const QUANTITIES: Readonly<Record<string, Field>> = {
  atmospheric_pressure: "pressure",
  carbon_dioxide: "co2",
  signal_strength: "rssi",
  volatile_organic_compounds_parts: "tvoc",
  volatile_organic_compounds: "voc",
};

/** By which name all devices have a quantity. */
const quantityOf = ({ device_class: quantity }: AnnouncedField): Field => QUANTITIES[quantity] ?? quantity;

/**
 * The fields of a device by name. The only one of its quantity has the name of that, so that `AM2301.Temperature` stands
 * beside `SCD40.Temperature`; others have their own. Beside what it measures the temperature of the device itself does
 * not count.
 */
export function placesOf(device: Announced): Map<Field, Place & { field: AnnouncedField }> {
  const measured = new Map<Field, AnnouncedField[]>();
  // those that tell of the device itself come last, and only where there is no other
  for (const field of [...device.fields].sort((a, b) => Number(a.diagnostic ?? 0) - Number(b.diagnostic ?? 0))) {
    const [quantity, all] = [quantityOf(field), measured.get(quantityOf(field))];
    if (quantity === "") continue;
    if (!all) measured.set(quantity, [field]);
    else if (!field.diagnostic || all[0]?.diagnostic) all.push(field);
  }
  const found = new Map<Field, Place & { field: AnnouncedField }>();
  for (const field of device.fields) {
    if (field.kind === "text" || field.kind === "image" || (field.path === null && field.metric === undefined))
      continue;
    const steps = field.path === null || field.path === "" ? [] : parsePath(field.path);
    if (steps === null) continue;
    const quantity = quantityOf(field);
    const all = measured.get(quantity) ?? [];
    const isOne = all.includes(field);
    let name = isOne && all.length === 1 ? quantity : field.name.toLowerCase();
    if (found.has(name)) name = field.id;
    found.set(name, {
      topic: field.topic,
      path: field.path ?? "",
      steps,
      scale: field.scale ?? 1,
      offset: field.offset ?? 0,
      metric: field.metric ?? null,
      ...(field.metric === undefined ? {} : { birth: field.topic.replace(/^([^/]*\/[^/]*\/[ND])DATA\//, "$1BIRTH/") }),
      label: field.name,
      quantity: isOne && all.length > 1 ? quantity : "",
      field,
    });
  }
  return found;
}

function itemOf(value: unknown, step: Step): unknown {
  if (Array.isArray(value)) return typeof step === "number" ? value[step] : undefined;
  return value !== null && typeof value === "object" && Object.hasOwn(value, step)
    ? (value as Record<Step, unknown>)[step]
    : undefined;
}

/** The topics in which values come, those in which they come once last. */
export function topicsOf(places: readonly Place[]): Set<string> {
  return new Set([...places.map(({ topic }) => topic), ...places.flatMap(({ birth }) => birth ?? [])]);
}

/** The number that stands at a place in a payload; null where none does. */
export function readingAt(place: Place, payload: unknown): number | null {
  let value = payload;
  if (place.metric !== null) {
    // as our decoder writes it, or as Eclipse Tahu does
    value = itemOf(itemOf(payload, "values"), place.metric);
    if (value === undefined) {
      const metrics = itemOf(payload, "metrics");
      const metric = Array.isArray(metrics) ? metrics.find((each) => itemOf(each, "name") === place.metric) : undefined;
      value = itemOf(metric, "value");
    }
  } else for (const step of place.steps) value = itemOf(value, step);
  let number: number | null = null;
  if (typeof value === "number") number = value;
  else if (typeof value === "boolean") number = value ? 1 : 0;
  else if (typeof value === "string")
    number = (place.steps.length === 0 ? numberInText(value) : null) ?? numberOfText(value);
  return number === null ? null : number * place.scale + place.offset;
}

/** The topic in which a device's newest picture is; null where it has none. */
export function pictureOf(device: Announced): string | null {
  return device.fields.find(({ kind }) => kind === "image")?.topic ?? null;
}

/** The filter by which a device's values are looked at together: its topic, or what is below the levels that all have. */
export function filterOf(topics: Iterable<string>): string | null {
  const all = [...new Set(topics)].map((topic) => topic.split("/"));
  const [first, ...others] = all;
  if (!first) return null;
  if (others.length === 0) return first.join("/");
  let same = 0;
  while (same < first.length && others.every((levels) => levels[same] === first[same])) same++;
  return same === 0 ? null : [...first.slice(0, same), "#"].join("/");
}

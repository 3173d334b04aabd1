/**
 * One quantity of many devices in one chart, whatever topic it comes by and whatever their payloads call it.
 *
 * A chart draws fields of topics. Through a lens each device is such a topic, named by its id, and the quantity its only
 * field: messages and answers are translated on their way in, and nothing behind it knows of devices.
 */
import { type Place, readingAt } from "./announced.ts";
import type { Answer, Columns } from "./columns.ts";
import type { Device } from "./devices.ts";
import { parsePath, stepText } from "./paths.ts";
import { seriesKey } from "./series.ts";
import { compareNames } from "./tree.ts";
import type { Field } from "./values.ts";

export interface Lens {
  /** The quantity, by the name that all devices have it under. */
  name: Field;
  unit: string;
  /** By the devices' ids, and the names of fields where a device has several, in the order of the devices' names. */
  places: ReadonlyMap<string, Place>;
  labels: ReadonlyMap<string, string>;
  /** Devices that have it in another unit: they can't be on the same scale. */
  others: number;
}

/** The quantity of all devices that have it, in the unit that most have it in. */
export function lensOf(devices: Iterable<Device>, name: Field): Lens {
  const found: { device: Device; id: string; label: string; unit: string; place: Place }[] = [];
  const units = new Map<string, number>();
  for (const device of devices) {
    const all = placesIn(device, name);
    for (const [field, place] of all) {
      const unit = device.unit(field);
      const [id, label] =
        all.length === 1 ? [device.id, device.title] : [`${device.id} ${field}`, `${device.title} ${place.label}`];
      found.push({ device, id, label, unit, place });
      if (unit !== "") units.set(unit, (units.get(unit) ?? 0) + 1);
    }
  }
  const unit = [...units].sort(([, a], [, b]) => b - a)[0]?.[0] ?? "";
  found.sort(
    (a, b) =>
      compareNames(a.device.title, b.device.title) ||
      compareNames(a.device.id, b.device.id) ||
      compareNames(a.label, b.label),
  );
  // who names no unit is taken for one of them
  const fitting = found.filter((each) => each.unit === unit || each.unit === "");
  return {
    name,
    unit,
    places: new Map(fitting.map(({ id, place }) => [id, place])),
    labels: new Map(fitting.map(({ id, label }) => [id, label])),
    others: new Set(found.filter((each) => !fitting.includes(each)).map(({ device }) => device)).size,
  };
}

/** Where a device has a quantity, by the names of its fields: what is called so, else all that are, such as dew points. */
function placesIn(device: Device, name: Field): [Field, Place][] {
  const place = device.places === null ? ownPlace(device, name) : device.places.get(name);
  if (place) return [[name, place]];
  const all = [...(device.places ?? [])].filter(([, { quantity }]) => quantity === name);
  const named = all.filter(([field]) => field.includes(name));
  return named.length > 0 ? named : all;
}

function ownPlace(device: Device, name: Field): Place | undefined {
  const steps = parsePath(name);
  if (steps === null || !(device.readings.has(name) || device.fields.has(name))) return undefined;
  return { ...device.place(name), steps: name === "" ? [] : steps, metric: null, label: device.label(name) };
}

/** The readings in a message, by the ids of their devices. */
export function readingsIn(lens: Lens, topic: string, payload: unknown): [string, number][] {
  const found: [string, number][] = [];
  for (const [id, place] of lens.places) {
    const value = place.topic === topic || place.birth === topic ? readingAt(place, payload) : null;
    if (value !== null) found.push([id, value]);
  }
  return found;
}

/** Where a place's past is asked for: a metric of Sparkplug stands in the payload as our decoder writes it. */
export function pathOf(place: Place): Field {
  return place.metric === null ? place.path : `values.${stepText(place.metric)}`;
}

/** The devices of these ids by the path of their quantity: those that one question asks for. */
export function byPath(lens: Lens, ids: readonly string[]): Map<Field, string[]> {
  const found = new Map<Field, string[]>();
  for (const id of ids) {
    const place = lens.places.get(id);
    if (place) found.set(pathOf(place), [...(found.get(pathOf(place)) ?? []), id]);
  }
  return found;
}

/** An answer about their topics as one about these devices. */
export function translated(lens: Lens, ids: readonly string[], answer: Answer): Answer {
  const series = new Map<string, Columns>();
  for (const id of ids) {
    const place = lens.places.get(id);
    const columns = place && answer.series.get(seriesKey(place.topic, pathOf(place)));
    if (columns) series.set(seriesKey(id, lens.name), scaledColumns(columns, place.scale, place.offset));
  }
  return { ...answer, series, texts: new Map() };
}

function scaledColumns(columns: Columns, scale: number, offset: number): Columns {
  if (scale === 1 && offset === 0) return columns;
  const each = (values: Columns["mean"]) => values.map((value) => (value === null ? null : value * scale + offset));
  const [min, max] = [each(columns.min), each(columns.max)];
  return {
    ...columns,
    min: scale < 0 ? max : min,
    max: scale < 0 ? min : max,
    last: each(columns.last),
    mean: each(columns.mean),
  };
}

/** Units for fields of topics, from the meta messages of sensors; where none says, there is none. */
import { type FieldMeta, Fleet, fieldsOfMeta } from "./core/devices.ts";
import { covers } from "./core/filter.ts";
import type { Field } from "./core/values.ts";

const META = /^sensors\/[^/]+\/meta$/;

/** The filter of the meta messages that belong to a filter of states; null when there are none, or it covers them. */
export function metaFilter(filter: string): string | null {
  const levels = filter.split("/");
  if (levels[0] !== "sensors" || levels.length !== 3 || levels[2] !== "state") return null;
  const meta = `sensors/${levels[1] ?? "+"}/meta`;
  return covers(filter, meta) ? null : meta;
}

/** Classes of fields that nobody opens a chart to see. */
const SERVICE = new Set(["signal_strength", "battery", "timestamp", "duration"]);

/** What meta messages say of the fields and names of sensors, and the gateway of other devices. */
export class Units {
  private readonly fields = new Map<Field, FieldMeta>();
  private readonly names = new Map<string, string>();

  /** Takes in a message when it is a sensor's meta; false when it isn't. */
  note(topic: string, payload: unknown): boolean {
    if (!META.test(topic)) return false;
    const name = (payload as { name?: unknown } | null)?.name;
    if (typeof name === "string" && name !== "") this.names.set(topic.slice(0, -"/meta".length), name);
    for (const [field, entry] of fieldsOfMeta(payload)) {
      const known = this.fields.get(field);
      if (!known) this.fields.set(field, entry);
      // Devices that don't agree on a unit leave the field without one.
      else if (known.unit !== entry.unit) this.fields.set(field, {});
    }
    return true;
  }

  /** @param fleet what the gateway tells of devices that are not ours. */
  constructor(private readonly fleet: Fleet = new Fleet()) {}

  /** The name of the device that a topic belongs to; null where it has none, or this is no topic of one. */
  nameOf(topic: string): string | null {
    return this.names.get(topic.split("/", 2).join("/")) ?? this.fleet.nameOf(topic);
  }

  /** What to call topics: by the sensor's name where it belongs to this topic alone, else as `labels` has it. */
  name(topics: readonly string[], labels: readonly string[]): string[] {
    const names = topics.map((topic) => this.nameOf(topic));
    const counts = new Map<string, number>();
    for (const name of names) if (name !== null) counts.set(name, (counts.get(name) ?? 0) + 1);
    return names.map((name, index) => (name !== null && counts.get(name) === 1 ? name : (labels[index] ?? "")));
  }

  /** Whether sensors say of a field that it is about themselves: their radio, their battery, their clock. */
  isService(field: Field): boolean {
    return SERVICE.has(this.fields.get(field)?.deviceClass ?? "");
  }

  /** The unit of a field of these topics; "" where nobody says it, or not all say the same. */
  of(field: Field, topics: Iterable<string>): string {
    return this.fields.get(field)?.unit ?? this.fleet.unitAt(topics, field);
  }
}

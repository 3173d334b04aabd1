/** Units for fields of topics, from the meta messages of sensors; where none says, there is none. */
import { type FieldMeta, fieldsOfMeta } from "./core/devices.ts";
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

export class Units {
  private readonly fields = new Map<Field, FieldMeta>();

  /** Takes in a message when it is a sensor's meta; false when it isn't. */
  note(topic: string, payload: unknown): boolean {
    if (!META.test(topic)) return false;
    for (const [field, entry] of fieldsOfMeta(payload)) {
      const known = this.fields.get(field);
      if (!known) this.fields.set(field, entry);
      // Devices that don't agree on a unit leave the field without one.
      else if (known.unit !== entry.unit) this.fields.set(field, {});
    }
    return true;
  }

  of(field: Field): string {
    return this.fields.get(field)?.unit ?? "";
  }
}

/** What a device can be told, and the bytes that tell it; by the words of `/devices` (docs/devices.md). */
import { t } from "./words.ts";

export interface Command {
  id: string;
  name: string;
  kind: string;
  topic: string;
  /** Of a switch, a button or a select: what to publish for each choice. */
  payloads?: Record<string, string>;
  /** Of a number or a text: what stands around it. */
  before?: string;
  after?: string;
  json?: boolean;
  min?: number;
  max?: number;
  step?: number;
  unit?: string;
  /** The id of the field that shows the outcome. */
  field?: string;
  retain?: boolean;
  problem?: string;
}

/** What to publish for a choice, a number or a text; null where the device can't be told that. */
export function payloadOf(command: Command, value: string): string | null {
  if (command.problem !== undefined) return null;
  const { payloads } = command;
  if (payloads) return Object.hasOwn(payloads, value) ? (payloads[value] ?? null) : null;
  if (command.before === undefined || command.after === undefined) return null;
  if (command.kind === "number" && !isWithin(command, value)) return null;
  return command.before + (command.json ? JSON.stringify(value) : value) + command.after;
}

function isWithin({ min, max }: Command, text: string): boolean {
  const number = text.trim() === "" ? Number.NaN : Number(text);
  return Number.isFinite(number) && number >= (min ?? number) && number <= (max ?? number);
}

/** What a number must be, in words; "" where any will do. */
export function boundsOf({ min, max, unit = "" }: Command): string {
  const with_ = unit === "" ? "" : ` ${unit}`;
  if (min !== undefined && max !== undefined) return t("{min} to {max}", { min, max: `${max}${with_}` });
  if (min !== undefined) return t("from {min}", { min: `${min}${with_}` });
  return max === undefined ? unit : t("up to {max}", { max: `${max}${with_}` });
}

const WORDS: Readonly<Record<string, boolean>> = {
  on: true,
  off: false,
  true: true,
  false: false,
  "1": true,
  "0": false,
};

/** Whether a switch is on, by the value of the field that shows it; null where that is not known. */
export function isOn(command: Command, value: unknown): boolean | null {
  if (typeof value === "boolean") return value;
  const text = String(value ?? "");
  if (text === "") return null;
  if (text === command.payloads?.on) return true;
  if (text === command.payloads?.off) return false;
  return WORDS[text.toLowerCase()] ?? null;
}

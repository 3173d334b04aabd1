import type { LiveError } from "./types.js";

/** A value of a device: where it arrives, and what it is. */
export interface DeviceField {
  id: string;
  name: string;
  kind: "number" | "state" | "text";
  /** Empty where nobody says it, as is `device_class`. */
  unit: string;
  /** The quantity in Home Assistant's words, such as `temperature`. */
  device_class: string;
  topic: string;
  /** Where in the payload it stands; "" is the payload itself, null where it is `metric`, `template` or has a `problem`. */
  path: string | null;
  /** The value is what stands there times this, plus `offset`. */
  scale?: number;
  offset?: number;
  metric?: string;
  template?: string;
  /** Why its value can't be had. */
  problem?: string;
  /** It tells of the device more than of what it measures. */
  diagnostic?: true;
}

/** What a device can be told: publish to `topic` the payload of a choice, or `before` + value + `after`. */
export interface DeviceCommand {
  id: string;
  name: string;
  kind: "switch" | "number" | "select" | "button" | "text";
  topic: string;
  payloads?: Record<string, string>;
  before?: string;
  after?: string;
  /** A text is written as a JSON string. */
  json?: true;
  min?: number;
  max?: number;
  step?: number;
  unit?: string;
  /** The id of the field that shows the outcome. */
  field?: string;
  retain?: true;
  problem?: string;
}

/** What announced itself on the broker, as far as the token covers it. */
export interface Device {
  id: string;
  name: string;
  kind: string;
  model: string;
  manufacturer: string;
  area: string;
  version: string;
  announced_by: string[];
  availability: "online" | "offline" | "sleeping" | "unknown";
  /** When its newest value came, milliseconds since 1970. */
  seen: number | null;
  fields: DeviceField[];
  commands: DeviceCommand[];
}

export interface DevicesOptions {
  /** An access token, or what fetches one. */
  token?: string | (() => string | Promise<string>) | undefined;
  /** Ends the request. */
  signal?: AbortSignal | undefined;
}

/**
 * All devices, by id. A page at a time is fetched, so that many of them hold up neither side.
 *
 * @param url where the gateway's `/devices` is, absolute or relative to the page
 */
export async function devices(url: string | URL = "devices", options: DevicesOptions = {}): Promise<Device[]> {
  const { token, signal } = options;
  const bearer = typeof token === "function" ? await token() : token;
  const headers: Record<string, string> = { accept: "application/json" };
  if (bearer) headers.authorization = `Bearer ${bearer}`;
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  const found: Device[] = [];
  for (let after: string | undefined = ""; after !== undefined; ) {
    const address: URL = new URL(url, base);
    if (after) address.searchParams.set("after", after);
    const answer = await fetch(address, { headers, ...(signal && { signal }) });
    const body = (await answer.json().catch(() => null)) as
      | ({ devices?: Device[]; next?: string } & Partial<Record<"code" | "detail", string>>)
      | null;
    if (!answer.ok || !body?.devices) {
      const text = body?.detail ?? `devices: the gateway answered ${answer.status}`;
      throw Object.assign(new Error(text), { code: body?.code ?? "internal" }) satisfies LiveError;
    }
    found.push(...body.devices);
    after = body.next;
  }
  return found;
}

/**
 * What can be chosen for a board: its chip, its sensors, and the pins that can work.
 *
 * Which pins a chip has and what a driver needs stands in `boards.json`, which `sensors-flash image` makes of the tables
 * that the tool and the board use themselves; nothing of it is repeated here.
 */

export interface Pins {
  digital: readonly number[];
  analogue: readonly number[];
  /** Pin to why one should know something of it. */
  doubts: Readonly<Record<string, string>>;
  boot: number;
  i2c: readonly [number, number] | null;
}

/** A sensor's driver, or a kind of output. */
interface Driver {
  /** Option to the kind of pin that it takes, in the order of the page. */
  pins: Readonly<Record<string, "digital" | "analogue">>;
  /** What else has to be said, and the answers that there are. */
  choices: Readonly<Record<string, readonly string[]>>;
  /** Whether people name what it publishes. */
  is_named: boolean;
  measures: readonly string[];
  model: string;
}

export interface Boards {
  version: string;
  chips: Readonly<Record<string, Pins>>;
  drivers: Readonly<Record<string, Driver>>;
  outputs: Readonly<Record<string, Driver>>;
  /** Published field to its unit, where the board has not said it itself yet. */
  units: Readonly<Record<string, string>>;
  /** What stands before the first reading in what a board prints. */
  delivered: string;
  settings_command: number;
  piece_bytes: number;
}

/** A sensor or an output as it is being chosen; a pin is null until it is. */
export interface Sensor {
  driver: string;
  isOutput: boolean;
  pins: Readonly<Record<string, number | null>>;
  choices: Readonly<Record<string, string>>;
  /** Published name of what people name themselves; "" where the driver has names of its own. */
  field: string;
}

/** One pin of one sensor: what the drawing gives to. */
export interface Slot {
  sensor: number;
  option: string;
}

export interface Wishes {
  name: string;
  interval: number;
  battery: boolean;
  sensors: readonly Sensor[];
  broker: Broker;
}

export interface Broker {
  url: string;
  username?: string;
  password?: string;
  ca_pem?: string;
}

const BUS_OPTIONS = new Set(["scl", "sda"]);

/** What the board calls what it does not name itself; what is not listed is called like its driver. */
const NAMES: Readonly<Record<string, string>> = { adc: "voltage", gpio: "contact" };

/** A driver or an output, by its name. */
export const partOf = (boards: Boards, name: string): Driver | undefined =>
  boards.drivers[name] ?? boards.outputs[name];

/** A sensor with the pins of this chip's usual bus, and none where there is no custom. */
export function freshSensor(boards: Boards, chip: string, driver: string, others: readonly Sensor[]): Sensor {
  const part = partOf(boards, driver);
  const taken = new Set(others.flatMap((other) => Object.values(other.pins)));
  const pins: Record<string, number | null> = {};
  const [scl, sda] = boards.chips[chip]?.i2c ?? [null, null];
  for (const option of Object.keys(part?.pins ?? {})) {
    const bus = option === "scl" ? scl : option === "sda" ? sda : undefined;
    const pin = bus ?? offered(boards, chip, driver).find((each) => isPlain(boards, chip, each, taken)) ?? null;
    pins[option] = bus === undefined ? pin : bus;
    taken.add(pins[option]);
  }
  const choices = Object.entries(part?.choices ?? {}).map(([option, values]) => [option, values[0] ?? ""]);
  const field = part?.is_named ? freeName(NAMES[driver] ?? driver, others) : "";
  return { driver, isOutput: driver in boards.outputs, pins, choices: Object.fromEntries(choices), field };
}

function freeName(name: string, others: readonly Sensor[]): string {
  const taken = new Set(others.map(({ field }) => field));
  for (let number = 2, found = name; ; found = `${name}_${number++}`) if (!taken.has(found)) return found;
}

const isPlain = (boards: Boards, chip: string, pin: number, taken: ReadonlySet<number | null>): boolean =>
  !taken.has(pin) && boards.chips[chip]?.doubts[String(pin)] === undefined && !boards.chips[chip]?.i2c?.includes(pin);

/** The pins that can work for a driver. */
export function offered(boards: Boards, chip: string, driver: string): readonly number[] {
  const isAnalogue = Object.values(partOf(boards, driver)?.pins ?? {}).includes("analogue");
  return boards.chips[chip]?.[isAnalogue ? "analogue" : "digital"] ?? [];
}

/** Who has a pin already; two sensors may share a bus, with the same wire at the same pin. */
export function holderOf(sensors: readonly Sensor[], slot: Slot, pin: number): Slot | null {
  for (const [index, sensor] of sensors.entries()) {
    for (const [option, taken] of Object.entries(sensor.pins)) {
      if (taken !== pin || (index === slot.sensor && option === slot.option)) continue;
      if (index !== slot.sensor && option === slot.option && BUS_OPTIONS.has(option)) continue;
      return { sensor: index, option };
    }
  }
  return null;
}

/** The sensors with a pin given to a slot. */
export function withPin(sensors: readonly Sensor[], slot: Slot, pin: number | null): Sensor[] {
  return sensors.map((sensor, index) =>
    index === slot.sensor ? { ...sensor, pins: { ...sensor.pins, [slot.option]: pin } } : sensor,
  );
}

/** Every slot, in the order of the page. */
export function slotsOf(sensors: readonly Sensor[]): Slot[] {
  return sensors.flatMap((sensor, index) => Object.keys(sensor.pins).map((option) => ({ sensor: index, option })));
}

/** The first slot that has no pin which can work on this chip; null when all have. */
export function openSlot(boards: Boards, chip: string, sensors: readonly Sensor[]): Slot | null {
  return (
    slotsOf(sensors).find((slot) => {
      const sensor = sensors[slot.sensor];
      const pin = sensor?.pins[slot.option] ?? null;
      if (!sensor || pin === null || !offered(boards, chip, sensor.driver).includes(pin)) return true;
      return holderOf(sensors, slot, pin) !== null;
    }) ?? null
  );
}

/** What settings.json says of the sensors, or of the outputs. */
export function partSettings(sensors: readonly Sensor[], areOutputs: boolean): Record<string, unknown>[] {
  return sensors
    .filter(({ isOutput }) => isOutput === areOutputs)
    .map(({ driver, pins, choices, field }) => ({
      [areOutputs ? "output" : "driver"]: driver,
      ...pins,
      ...choices,
      ...(field === "" ? {} : { [areOutputs ? "name" : "field"]: field }),
    }));
}

/** What goes to the board, without its network: that it has by then. */
export function settingsOf(wishes: Wishes): Record<string, unknown> {
  const { url, username, password, ca_pem } = wishes.broker;
  const name = wishes.name.trim();
  return {
    ...(name === "" ? {} : { name }),
    interval: wishes.interval,
    ...(wishes.battery ? { profile: "battery" } : {}),
    sensors: partSettings(wishes.sensors, false),
    ...(wishes.sensors.some(({ isOutput }) => isOutput) ? { outputs: partSettings(wishes.sensors, true) } : {}),
    mqtt: { url: url.trim(), ...(username ? { username, ...(password ? { password } : {}) } : {}) },
    ...(ca_pem ? { ca_pem } : {}),
  };
}

/** Why an address can't be that of a broker for a board; null when it can. */
export function brokerProblem(url: string): "empty" | "form" | "itself" | null {
  const text = url.trim();
  if (text === "") return "empty";
  const found = /^mqtts?:\/\/(\[[0-9a-f:.]+\]|[^\s:/?#@]+)(:\d{1,5})?\/?$/i.exec(text);
  if (!found) return "form";
  return /^(localhost|127\..*|\[::1\])$/i.test(found[1] ?? "") ? "itself" : null;
}

/** The terminal's command for the same; the image's name is the reader's to fill in. */
export function commandFor(wishes: Wishes, chip: string, image: string): string {
  const quoted = (text: string) => (/^[\w./:@,=+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);
  const words = ["sensors-flash", "--chip", chip, "--firmware", image, "--wifi", "SSID", "--mqtt"];
  words.push(quoted(wishes.broker.url.trim() || "mqtt://192.168.1.10"));
  if (wishes.broker.username) words.push("--mqtt-username", quoted(wishes.broker.username));
  for (const areOutputs of [false, true]) {
    for (const { [areOutputs ? "output" : "driver"]: driver, ...rest } of partSettings(wishes.sensors, areOutputs)) {
      const options = Object.entries(rest).map((each) => each.join("="));
      words.push(areOutputs ? "--output" : "--sensor", `${driver}${options.length > 0 ? `:${options.join(",")}` : ""}`);
    }
  }
  if (wishes.interval !== 10) words.push("--interval", String(wishes.interval));
  if (wishes.battery) words.push("--battery");
  if (wishes.name.trim() !== "") words.push("--name", quoted(wishes.name.trim()));
  return words.join(" ");
}

/** A key that signs a board's updates: 64 hexadecimal digits. */
export function freshKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The unit of a field: as the board describes it, else as its program's table has it; "" for none. */
export function unitOf(boards: Boards, meta: unknown, field: string): string {
  const fields = (meta as { fields?: Record<string, { unit?: unknown } | null> } | null)?.fields;
  const told = fields?.[field]?.unit;
  return typeof told === "string" ? told : fields ? "" : (boards.units[field.replace(/_\d+$/, "")] ?? "");
}

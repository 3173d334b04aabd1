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

export interface Driver {
  needs: readonly string[];
  may: readonly string[];
  measures: readonly string[];
  model: string;
}

export interface Boards {
  version: string;
  chips: Readonly<Record<string, Pins>>;
  drivers: Readonly<Record<string, Driver>>;
  /** What stands before the first reading in what a board prints. */
  delivered: string;
  settings_command: number;
  piece_bytes: number;
}

/** A sensor as it is being chosen; a pin is null until it is. */
export interface Sensor {
  driver: string;
  pins: Readonly<Record<string, number | null>>;
  /** Published name of what an analogue pin measures. */
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

const PIN_OPTIONS = ["pin", "scl", "sda"];
const BUS_OPTIONS = new Set(["scl", "sda"]);

/** The options of a driver that are pins, in the order of its table. */
export function pinOptions(driver: Driver | undefined): string[] {
  return [...(driver?.needs ?? []), ...(driver?.may ?? [])].filter((option) => PIN_OPTIONS.includes(option));
}

/** Analogue inputs are other pins than those of buses. */
const isAnalogue = (driver: string): boolean => driver === "adc";

/** A sensor with the pins of this chip's usual bus, and none where there is no custom. */
export function freshSensor(boards: Boards, chip: string, driver: string, others: readonly Sensor[]): Sensor {
  const taken = new Set(others.flatMap((other) => Object.values(other.pins)));
  const pins: Record<string, number | null> = {};
  const [scl, sda] = boards.chips[chip]?.i2c ?? [null, null];
  for (const option of pinOptions(boards.drivers[driver])) {
    const bus = option === "scl" ? scl : option === "sda" ? sda : undefined;
    pins[option] =
      bus !== undefined
        ? bus
        : (offered(boards, chip, driver).find((pin) => isPlain(boards, chip, pin, taken)) ?? null);
  }
  return { driver, pins, field: isAnalogue(driver) ? "voltage" : "" };
}

const isPlain = (boards: Boards, chip: string, pin: number, taken: ReadonlySet<number | null>): boolean =>
  !taken.has(pin) && boards.chips[chip]?.doubts[String(pin)] === undefined && !boards.chips[chip]?.i2c?.includes(pin);

/** The pins that can work for a driver. */
export function offered(boards: Boards, chip: string, driver: string): readonly number[] {
  const pins = boards.chips[chip];
  return (isAnalogue(driver) ? pins?.analogue : pins?.digital) ?? [];
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

/** What settings.json says of the sensors. */
export function sensorSettings(sensors: readonly Sensor[]): Record<string, unknown>[] {
  return sensors.map(({ driver, pins, field }) => ({ driver, ...pins, ...(field === "" ? {} : { field }) }));
}

/** What goes to the board, without its network: that it has by then. */
export function settingsOf(wishes: Wishes): Record<string, unknown> {
  const { url, username, password, ca_pem } = wishes.broker;
  const name = wishes.name.trim();
  return {
    ...(name === "" ? {} : { name }),
    interval: wishes.interval,
    ...(wishes.battery ? { profile: "battery" } : {}),
    sensors: sensorSettings(wishes.sensors),
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
  for (const { driver, pins, field } of wishes.sensors) {
    const options = [...Object.entries(pins), ...(field === "" ? [] : [["field", field]])];
    words.push("--sensor", driver + (options.length > 0 ? `:${options.map((each) => each.join("=")).join(",")}` : ""));
  }
  if (wishes.interval !== 10) words.push("--interval", String(wishes.interval));
  if (wishes.battery) words.push("--battery");
  if (wishes.name.trim() !== "") words.push("--name", quoted(wishes.name.trim()));
  return words.join(" ");
}

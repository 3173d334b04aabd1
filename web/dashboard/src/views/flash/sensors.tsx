/** Which sensors are connected, and where. */
import { useState } from "preact/hooks";
import {
  type Boards,
  freshSensor,
  holderOf,
  offered,
  openSlot,
  partOf,
  type Sensor,
  type Slot,
  slotsOf,
  withPin,
} from "../../core/boards.ts";
import { t } from "../../core/words.ts";
import { CloseIcon } from "../../parts/icons.tsx";
import { DOUBTS, Drawing, wireName } from "./drawing.tsx";

const MEASURES: Readonly<Record<string, string>> = {
  temperature: t("temperature"),
  humidity: t("humidity"),
  pressure: t("pressure"),
  co2: "CO₂",
  illuminance: t("brightness"),
  moisture: t("moisture"),
  pm1: "PM1",
  pm25: "PM2.5",
  pm10: "PM10",
  gas_resistance: t("vapours"),
  weight: t("weight"),
};

/** What the tables of the program do not say for people. */
const WORDS: Readonly<Record<string, string>> = {
  fake: t("No sensor: made-up readings, to try it out"),
  adc: t("Analogue input: a voltage"),
  battery: t("Battery: charge and voltage"),
  ds18b20: `DS18B20: ${t("temperature")}`,
  gpio: t("Contact: open or closed"),
  pulse: t("Meter with pulses: water, electricity"),
  soil: t("Soil probe: moisture"),
  relay: t("Relay: on or off"),
  led: t("LED: brightness"),
  pwm: t("PWM: a fan, a valve"),
};

const SUPPLY = t("Besides: its supply to 3V3, its GND to GND.");
const ALSO: Readonly<Record<string, string>> = {
  fake: "",
  adc: t("At most 3.1 V at the pin; GND to GND."),
  battery: t("Between two equal resistors from the cell’s + to GND: half of its voltage is at the pin."),
  dht11: t("Besides: its supply to 3V3, its GND to GND; 10 kΩ between DATA and 3V3."),
  dht22: t("Besides: its supply to 3V3, its GND to GND; 10 kΩ between DATA and 3V3."),
  ds18b20: t("Besides: its supply to 3V3, its GND to GND; 4.7 kΩ between DATA and 3V3."),
  gpio: t("The contact’s other wire to GND."),
  pulse: t("The contact’s other wire to GND."),
  pms5003: t("Besides: its supply to 5 V, its GND to GND; the wires between have 3.3 V."),
  relay: t("Besides: its supply, often 5 V, and its GND to GND."),
  led: t("A resistor of 330 Ω, then the LED’s long leg; its short one to GND."),
  pwm: t("To the PWM input of a driver; its GND to GND."),
};

/** What a driver is for, for people. */
function driverWords(boards: Boards, name: string): string {
  const driver = partOf(boards, name);
  const words = WORDS[name];
  if (words !== undefined) return words;
  const measures = (driver?.measures ?? []).map((field) => MEASURES[field] ?? field.replaceAll("_", " "));
  const model = driver && driver.model !== "?" ? driver.model : name.toUpperCase();
  return measures.length > 0 ? `${model}: ${measures.join(", ")}` : model;
}

const OPTIONS: Readonly<Record<string, string>> = { chemistry: t("Chemistry") };

/** "Sensor 2", "Output 1": each counted among its own. */
function titleOf(sensors: readonly Sensor[], index: number): string {
  const isOutput = sensors[index]?.isOutput === true;
  const number = sensors.slice(0, index + 1).filter((each) => each.isOutput === isOutput).length;
  return isOutput ? t("Output {number}", { number }) : t("Sensor {number}", { number });
}

interface Props {
  boards: Boards;
  chip: string;
  sensors: readonly Sensor[];
  onChange: (sensors: Sensor[]) => void;
}

export function Sensors({ boards, chip, sensors, onChange }: Props) {
  const [chosen, setChosen] = useState<Slot | null>(null);
  const slots = slotsOf(sensors);
  const isThere = (slot: Slot | null) =>
    slots.some((each) => each.sensor === slot?.sensor && each.option === slot?.option);
  const slot = (isThere(chosen) ? chosen : null) ?? openSlot(boards, chip, sensors) ?? slots[0] ?? null;
  const give = (to: Slot, pin: number | null) => {
    const next = withPin(sensors, to, pin);
    onChange(next);
    setChosen(openSlot(boards, chip, next) ?? to);
  };
  const change = (index: number, what: Partial<Sensor>) =>
    onChange(sensors.map((each, place) => (place === index ? { ...each, ...what } : each)));
  const add = (name: string) => {
    onChange([...sensors, freshSensor(boards, chip, name, sensors)]);
    setChosen(null);
  };
  return (
    <div class="sensors">
      <div class="list">
        {sensors.map((sensor, index) => (
          <fieldset key={index} class={`sensor s${(index % 8) + 1}`}>
            <legend>{titleOf(sensors, index)}</legend>
            <div class="row">
              <select
                aria-label={t("Kind of {part}", { part: titleOf(sensors, index) })}
                value={sensor.driver}
                onChange={(event) => {
                  const others = sensors.filter((_, place) => place !== index);
                  const fresh = freshSensor(boards, chip, event.currentTarget.value, others);
                  onChange(sensors.map((each, place) => (place === index ? fresh : each)));
                  setChosen(null);
                }}
              >
                {Object.keys(sensor.isOutput ? boards.outputs : boards.drivers).map((name) => (
                  <option key={name} value={name}>
                    {driverWords(boards, name)}
                  </option>
                ))}
              </select>
              {(sensor.isOutput || sensors.filter(({ isOutput }) => !isOutput).length > 1) && (
                <button
                  type="button"
                  class="quiet square"
                  aria-label={t("Remove {part}", { part: titleOf(sensors, index) })}
                  onClick={() => onChange(sensors.filter((_, place) => place !== index))}
                >
                  <CloseIcon />
                </button>
              )}
            </div>
            {Object.entries(sensor.pins).map(([option, pin]) => {
              const here = { sensor: index, option };
              const isChosen = slot?.sensor === index && slot.option === option;
              const doubt = pin === null ? undefined : boards.chips[chip]?.doubts[String(pin)];
              return (
                <div key={option} class="wire">
                  <label class={isChosen ? "chosen" : ""}>
                    <span>{wireName(sensor.driver, option)}</span>
                    <select
                      value={pin ?? ""}
                      onFocus={() => setChosen(here)}
                      onChange={(event) =>
                        give(here, event.currentTarget.value === "" ? null : Number(event.currentTarget.value))
                      }
                    >
                      <option value="">{t("choose a pin")}</option>
                      {offered(boards, chip, sensor.driver)
                        .filter((each) => each === pin || holderOf(sensors, here, each) === null)
                        .map((each) => (
                          <option key={each} value={each}>
                            GPIO {each}
                          </option>
                        ))}
                    </select>
                  </label>
                  {doubt !== undefined && (
                    <p class="doubt">
                      GPIO {pin} {DOUBTS[doubt] ?? doubt}.
                    </p>
                  )}
                </div>
              );
            })}
            {Object.entries(partOf(boards, sensor.driver)?.choices ?? {}).map(([option, values]) => (
              <label key={option} class="said">
                <span>{OPTIONS[option] ?? option}</span>
                <select
                  value={sensor.choices[option]}
                  onChange={(event) =>
                    change(index, { choices: { ...sensor.choices, [option]: event.currentTarget.value } })
                  }
                >
                  {values.map((value) => (
                    <option key={value}>{value}</option>
                  ))}
                </select>
              </label>
            ))}
            {partOf(boards, sensor.driver)?.is_named && (
              <label class="said">
                <span>{t("Called")}</span>
                <input
                  class="mono"
                  value={sensor.field}
                  maxLength={32}
                  spellcheck={false}
                  autocapitalize="off"
                  onInput={(event) => change(index, { field: event.currentTarget.value })}
                />
              </label>
            )}
            {(ALSO[sensor.driver] ?? SUPPLY) !== "" && <p class="soft">{ALSO[sensor.driver] ?? SUPPLY}</p>}
          </fieldset>
        ))}
        <div class="row">
          <button type="button" onClick={() => add("dht22" in boards.drivers ? "dht22" : "fake")}>
            {t("Another sensor")}
          </button>
          <button type="button" onClick={() => add(Object.keys(boards.outputs)[0] ?? "")}>
            {t("An output")}
          </button>
        </div>
      </div>
      {slots.length > 0 && (
        <Drawing
          boards={boards}
          chip={chip}
          sensors={sensors}
          slot={slot}
          onPin={(pin) => slot !== null && give(slot, pin)}
        />
      )}
    </div>
  );
}

/** Which sensors are connected, and where. */
import { useState } from "preact/hooks";
import {
  type Boards,
  freshSensor,
  holderOf,
  offered,
  openSlot,
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
  pm25: "PM2.5",
};

/** What a driver is for, for people. */
export function driverWords(boards: Boards, name: string): string {
  const driver = boards.drivers[name];
  if (name === "fake") return t("No sensor: made-up readings, to try it out");
  if (name === "adc") return t("Analogue input: a voltage");
  const measures = (driver?.measures ?? []).map((field) => MEASURES[field] ?? field.replaceAll("_", " "));
  const model = driver && driver.model !== "?" ? driver.model : name.toUpperCase();
  return measures.length > 0 ? `${model}: ${measures.join(", ")}` : model;
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
  return (
    <div class="sensors">
      <div class="list">
        {sensors.map((sensor, index) => (
          <fieldset key={index} class={`sensor s${(index % 8) + 1}`}>
            <legend>{t("Sensor {number}", { number: index + 1 })}</legend>
            <div class="row">
              <select
                aria-label={t("Kind of sensor {number}", { number: index + 1 })}
                value={sensor.driver}
                onChange={(event) => {
                  const others = sensors.filter((_, place) => place !== index);
                  const fresh = freshSensor(boards, chip, event.currentTarget.value, others);
                  onChange(sensors.map((each, place) => (place === index ? fresh : each)));
                  setChosen(null);
                }}
              >
                {Object.keys(boards.drivers).map((name) => (
                  <option key={name} value={name}>
                    {driverWords(boards, name)}
                  </option>
                ))}
              </select>
              {sensors.length > 1 && (
                <button
                  type="button"
                  class="quiet square"
                  aria-label={t("Remove sensor {number}", { number: index + 1 })}
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
                    <span>{wireName(option)}</span>
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
          </fieldset>
        ))}
        <button
          type="button"
          onClick={() => {
            onChange([...sensors, freshSensor(boards, chip, "dht22" in boards.drivers ? "dht22" : "fake", sensors)]);
            setChosen(null);
          }}
        >
          {t("Another sensor")}
        </button>
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

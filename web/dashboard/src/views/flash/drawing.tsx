/** A drawing of the board: the pins that can work, and what is connected to each. */
import { useState } from "preact/hooks";
import { type Boards, holderOf, offered, type Sensor, type Slot } from "../../core/boards.ts";
import { t } from "../../core/words.ts";

export const DOUBTS: Readonly<Record<string, string>> = {
  strapping: t("decides at a reset how the chip starts: what is connected must not pull it the other way"),
  memory: t("belongs to the memory of boards that have some beside the flash (PSRAM)"),
  console: t("is the board’s USB or serial port, over which it is flashed and tells what it does"),
};

const WIRES: Readonly<Record<string, string>> = {
  "adc.pin": "IN",
  "battery.pin": "+",
  "gpio.pin": t("contact"),
  "hx711.dout": "DT",
  "led.pin": "LED",
  "pms5003.rx": "TX", // the board's RX listens to it
  "pms5003.tx": "RX",
  "pulse.pin": t("pulses"),
  "pwm.pin": "PWM",
  "relay.pin": "IN",
  "soil.pin": "AOUT",
};

/** What stands beside the wire on most sensors of this driver. */
export const wireName = (driver: string, option: string): string =>
  WIRES[`${driver}.${option}`] ?? (option === "pin" ? "DATA" : option.toUpperCase());

/** What a part is called beside its pin, where there is little room. */
const shortName = (sensor: Sensor): string =>
  sensor.isOutput ? sensor.field.slice(0, 9) : sensor.driver.toUpperCase();

interface Props {
  boards: Boards;
  chip: string;
  sensors: readonly Sensor[];
  slot: Slot | null;
  onPin: (pin: number) => void;
}

const ROW = 26;
const TOP = 58;
const WIDTH = 360;

export function Drawing({ boards, chip, sensors, slot, onPin }: Props) {
  const [at, setAt] = useState<number | null>(null);
  const pins = boards.chips[chip];
  if (!pins) return null;
  const all = [...new Set([...pins.digital, ...pins.analogue])].sort((a, b) => a - b);
  const half = Math.ceil(all.length / 2);
  const height = TOP + half * ROW + 34;
  const driver = slot ? sensors[slot.sensor]?.driver : undefined;
  const able = driver ? offered(boards, chip, driver) : [];
  const doubt = at === null ? undefined : pins.doubts[String(at)];
  return (
    <figure class="board">
      <svg viewBox={`0 0 ${WIDTH} ${height}`} role="group" aria-label={t("Pins of the {chip}", { chip })}>
        <rect class="plate" x="92" y="6" width="176" height={height - 12} rx="10" />
        <rect class="can" x="128" y="16" width="104" height="34" rx="4" />
        <text class="chip" x="180" y="38">
          {chip}
        </text>
        <rect class="usb" x="156" y={height - 22} width="48" height="20" rx="4" />
        <text class="usb-word" x="180" y={height - 8}>
          USB
        </text>
        {all.map((pin, index) => {
          const left = index < half;
          const y = TOP + (left ? index : index - half) * ROW + ROW / 2;
          const x = left ? 104 : 256;
          const holder = sensors.findIndex((sensor) => Object.values(sensor.pins).includes(pin));
          const option = Object.entries(sensors[holder]?.pins ?? {}).find(([, each]) => each === pin)?.[0] ?? "";
          const isOurs = slot !== null && sensors[slot.sensor]?.pins[slot.option] === pin;
          const isTaken = slot !== null && holderOf(sensors, slot, pin) !== null;
          const may = slot !== null && able.includes(pin) && !isTaken;
          const held = sensors[holder];
          const use = held === undefined ? "" : `${shortName(held)} ${wireName(held.driver, option)}`;
          const doubts = pins.doubts[String(pin)] !== undefined;
          return (
            <g
              key={pin}
              role="button"
              tabIndex={may ? 0 : -1}
              aria-disabled={!may}
              aria-pressed={isOurs}
              aria-label={`GPIO ${pin}${use && ` ${use}`}`}
              class={`pin${may ? " may" : ""}${isOurs ? " ours" : ""}${doubts ? " doubt" : ""}${holder >= 0 ? ` s${(holder % 8) + 1}` : ""}`}
              onClick={() => may && onPin(pin)}
              onKeyDown={(event) => {
                if (!may || (event.key !== "Enter" && event.key !== " ")) return;
                event.preventDefault();
                onPin(pin);
              }}
              onPointerEnter={() => setAt(pin)}
              onPointerLeave={() => setAt(null)}
              onFocus={() => setAt(pin)}
              onBlur={() => setAt(null)}
            >
              <rect class="reach" x={left ? 0 : 180} y={y - ROW / 2} width="180" height={ROW} />
              <circle cx={x} cy={y} r="8" />
              <text class="number" x={left ? 120 : 240} y={y + 4.5} text-anchor={left ? "start" : "end"}>
                {pin}
              </text>{" "}
              {use !== "" && (
                <text class="use" x={left ? 88 : 272} y={y + 4.5} text-anchor={left ? "end" : "start"}>
                  {use}
                </text>
              )}
            </g>
          );
        })}
      </svg>
      <figcaption>
        {doubt !== undefined
          ? `GPIO ${at} ${DOUBTS[doubt] ?? doubt}`
          : t(
              "Numbers are those of the chip (GPIO), as printed beside the pins; where a pin sits differs from board to board.",
            )}
      </figcaption>
    </figure>
  );
}

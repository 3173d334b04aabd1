/** How the scale of each field is chosen; it stands in the address. */

import { useState } from "preact/hooks";
import { parseScale, type Scale, scaleText } from "../../core/scale.ts";
import { type Field, fieldLabel } from "../../core/values.ts";
import { t } from "../../core/words.ts";
import { route, setParams } from "../../router.ts";

/** The scales that were chosen, by field. */
export function chosenScales(params: URLSearchParams): ReadonlyMap<Field, Scale> {
  const found = params.getAll("y").flatMap((text) => parseScale(text) ?? []);
  return new Map(found.map(({ field, scale }) => [field, scale]));
}

/** Chooses another one for a field, or lets it choose itself. */
export function setScale(field: Field, scale: Scale): void {
  const next = new Map(chosenScales(route.value.params));
  if (scale === "auto") next.delete(field);
  else next.set(field, scale);
  setParams({ y: [...next].map(([name, each]) => scaleText(name, each)) });
}

const WORDS: readonly (readonly [value: string, label: string])[] = [
  ["auto", t("Usual readings")],
  ["all", t("All readings")],
  ["zero", t("From zero")],
  ["log", t("Logarithmic")],
  ["own", t("From – to")],
];

interface ScalesProps {
  fields: readonly Field[];
  scales: ReadonlyMap<Field, Scale>;
}

export function Scales({ fields, scales }: ScalesProps) {
  return (
    <details class="scales" open={fields.some((field) => scales.has(field))}>
      <summary>{t("Scale")}</summary>
      <div class="row">
        {fields.map((field) => (
          <OneScale key={field} field={field} scale={scales.get(field) ?? "auto"} titled={fields.length > 1} />
        ))}
      </div>
    </details>
  );
}

function OneScale({ field, scale, titled }: { field: Field; scale: Scale; titled: boolean }) {
  const bounds = typeof scale === "string" ? null : scale;
  const [own, setOwn] = useState(bounds !== null);
  const [low, setLow] = useState(bounds ? String(bounds.low) : "");
  const [high, setHigh] = useState(bounds ? String(bounds.high) : "");
  const label = fieldLabel(field);
  const apply = (from: string, to: string) => {
    setLow(from);
    setHigh(to);
    const chosen = parseScale(`${field}:${from.trim().replace(",", ".")}..${to.trim().replace(",", ".")}`);
    if (chosen) setScale(field, chosen.scale);
  };
  return (
    <span class="row">
      <label class="select">
        <span class={titled ? "" : "sr"}>{titled ? label : t("Scale of {label}", { label })}</span>
        <select
          value={own ? "own" : (scale as string)}
          onChange={(event) => {
            const { value } = event.currentTarget;
            setOwn(value === "own");
            if (value !== "own") setScale(field, value as "auto" | "all" | "zero" | "log");
          }}
        >
          {WORDS.map(([value, words]) => (
            <option key={value} value={value}>
              {words}
            </option>
          ))}
        </select>
      </label>
      {own && (
        <>
          <input
            aria-label={t("{label}, scale from", { label })}
            inputMode="decimal"
            size={6}
            value={low}
            onInput={(event) => apply(event.currentTarget.value, high)}
          />
          <input
            aria-label={t("{label}, scale to", { label })}
            inputMode="decimal"
            size={6}
            value={high}
            onInput={(event) => apply(low, event.currentTarget.value)}
          />
        </>
      )}
    </span>
  );
}

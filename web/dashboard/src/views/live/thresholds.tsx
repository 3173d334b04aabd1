/** Limits that are drawn into the charts; they stand in the address. */

import { useState } from "preact/hooks";
import { formatNumber } from "../../core/format.ts";
import { type Threshold, thresholdText } from "../../core/store.ts";
import { type Field, fieldLabel } from "../../core/values.ts";
import { t } from "../../core/words.ts";
import { CloseIcon } from "../../parts/icons.tsx";
import { setParams } from "../../router.ts";

export function Thresholds({ thresholds, fields }: { thresholds: readonly Threshold[]; fields: readonly Field[] }) {
  const [field, setField] = useState<Field | null>(null);
  const [side, setSide] = useState(">");
  const [value, setValue] = useState("");
  const at = field !== null && fields.includes(field) ? field : (fields[0] ?? "");
  const number = Number(value.replace(",", "."));
  const usable = value.trim() !== "" && Number.isFinite(number);
  const set = (next: readonly Threshold[]) => setParams({ limit: next.map(thresholdText) });
  return (
    <details class="thresholds" open={thresholds.length > 0}>
      <summary>{t("Thresholds")}</summary>
      <div class="row">
        {thresholds.map((threshold) => (
          <span class="chip" key={thresholdText(threshold)}>
            {fieldLabel(threshold.field)} {threshold.above ? t("above") : t("below")} {formatNumber(threshold.value)}
            <button
              type="button"
              aria-label={t("Remove: {field} {value} {value2}", {
                field: fieldLabel(threshold.field),
                value: threshold.above ? t("above") : t("below"),
                value2: threshold.value,
              })}
              onClick={() => set(thresholds.filter((entry) => entry !== threshold))}
            >
              <CloseIcon />
            </button>
          </span>
        ))}
        <form
          class="row"
          onSubmit={(event) => {
            event.preventDefault();
            if (!usable) return;
            set([...thresholds, { field: at, above: side === ">", value: number }]);
            setValue("");
          }}
        >
          {fields.length > 1 && (
            <select aria-label={t("Field")} value={at} onChange={(event) => setField(event.currentTarget.value)}>
              {fields.map((entry) => (
                <option key={entry} value={entry}>
                  {fieldLabel(entry)}
                </option>
              ))}
            </select>
          )}
          <select aria-label={t("Side")} value={side} onChange={(event) => setSide(event.currentTarget.value)}>
            <option value=">">{t("above")}</option>
            <option value="<">{t("below")}</option>
          </select>
          <input
            aria-label={t("Value")}
            inputMode="decimal"
            size={7}
            value={value}
            onInput={(event) => setValue(event.currentTarget.value)}
          />
          <button type="submit" disabled={!usable}>
            {t("Add")}
          </button>
        </form>
      </div>
    </details>
  );
}

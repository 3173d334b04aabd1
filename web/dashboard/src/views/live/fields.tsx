/** Which fields are drawn: a chip for each that is worth it, the others on request. */

import { useState } from "preact/hooks";
import { type Field, fieldLabel, fieldRank } from "../../core/values.ts";
import { t } from "../../core/words.ts";
import { setParams } from "../../router.ts";

export function FieldChips({ all, chosen }: { all: readonly Field[]; chosen: readonly Field[] }) {
  const [more, setMore] = useState(false);
  if (all.length < 2) return null;
  const LIMIT = 10;
  // Clocks and counters are numbers too, but nobody opens a chart to see them.
  const isWanted = (field: Field, index: number) => index < LIMIT && fieldRank(field) < 1000;
  const shown = more ? all : all.filter((field, index) => isWanted(field, index) || chosen.includes(field));
  if (shown.length < 2 && all.length === shown.length) return null;
  const toggle = (field: Field) => {
    const next = chosen.includes(field) ? chosen.filter((entry) => entry !== field) : [...chosen, field];
    // without any, those come that are drawn before anyone chose
    setParams({ field: next.length > 0 ? all.filter((entry) => next.includes(entry)) : null });
  };
  return (
    <fieldset class="chips">
      <legend class="sr">{t("Fields to draw")}</legend>
      {shown.map((field) => (
        <button key={field} type="button" aria-pressed={chosen.includes(field)} onClick={() => toggle(field)}>
          {fieldLabel(field)}
        </button>
      ))}
      {all.length > shown.length && (
        <button type="button" class="more" onClick={() => setMore(true)}>
          {all.length - shown.length} {t("more")}
        </button>
      )}
    </fieldset>
  );
}

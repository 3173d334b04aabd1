/** The same data without this page: commands and code to copy. */

import { useState } from "preact/hooks";
import { copyForms } from "../../core/copyas.ts";
import { EMPTY_VIEW, savedText } from "../../core/saved.ts";
import { t } from "../../core/words.ts";
import { CopyButton } from "../../parts/copy.tsx";
import { base, route, to } from "../../router.ts";
import { token } from "../../session.ts";

export function Elsewhere({ filter, since }: { filter: string; since: string }) {
  const forms = copyForms(base.href, filter, since, token.value !== null);
  const [name, setName] = useState(forms[0]?.name ?? "");
  const form = forms.find((entry) => entry.name === name) ?? forms[0];
  if (!form) return null;
  return (
    <section class="copy-as" aria-labelledby="copy-title">
      <div class="section-head">
        <h2 id="copy-title">{t("Use it elsewhere")}</h2>
        <fieldset class="segments">
          <legend class="sr">{t("Copy as")}</legend>
          {forms.map((entry) => (
            <button
              key={entry.name}
              type="button"
              aria-pressed={entry.name === form.name}
              onClick={() => setName(entry.name)}
            >
              {entry.name}
            </button>
          ))}
        </fieldset>
        <span class="spread" />
        <a href={onView(filter, since)}>{t("On a view of its own")}</a>
        <CopyButton text={form.text} label={t("as {name}", { name: form.name })} />
      </div>
      <pre tabIndex={0}>{form.text}</pre>
      {form.note && <p class="soft">{form.note}</p>}
    </section>
  );
}

/** The address of a new view with this chart on it. */
function onView(filter: string, since: string): string {
  const fields = route.value.params.getAll("field");
  const view = { ...EMPTY_VIEW, since, parts: [{ kind: "chart" as const, topic: filter, fields, title: "" }] };
  return to.saved("", `&is=${encodeURIComponent(savedText(view))}&edit=1`);
}

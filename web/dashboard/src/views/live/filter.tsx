/** The filter, as the page's title that can be edited. */

import { useEffect, useState } from "preact/hooks";
import { filterProblem } from "../../core/filter.ts";
import { t } from "../../core/words.ts";
import { navigate, to } from "../../router.ts";

export function FilterHead({ filter }: { filter: string }) {
  const [text, setText] = useState(filter);
  useEffect(() => setText(filter), [filter]);
  const problem = filterProblem(text);
  return (
    <header class="filter-head">
      <h1 class="sr">{filter}</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (problem === null && text !== filter) navigate(to.live(text));
        }}
      >
        <label for="filter" class="sr">
          {t("Topic filter")}
        </label>
        <input
          id="filter"
          class="filter"
          value={text}
          spellcheck={false}
          autocapitalize="off"
          autoComplete="off"
          aria-invalid={problem !== null}
          aria-describedby="filter-problem"
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => event.key === "Escape" && setText(filter)}
        />
        <button type="submit" class={text === filter ? "hide" : ""} disabled={problem !== null || text === filter}>
          {t("Show")}
        </button>
      </form>
      <p id="filter-problem" class="problem" role="status">
        {text === filter ? "" : (problem ?? "")}
      </p>
    </header>
  );
}

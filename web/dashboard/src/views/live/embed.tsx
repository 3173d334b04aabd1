/** The charts in a frame of another page: nothing but them, and why they stand still when they do. */

import type { ComponentChildren } from "preact";
import { t } from "../../core/words.ts";
import { asOf, refusalTitle } from "../../parts/bits.tsx";
import { to } from "../../router.ts";
import { isLive, link, refusal } from "../../session.ts";

interface EmbedProps {
  filter: string;
  /** Null while there is nothing to draw. */
  charts: ComponentChildren;
  legend: ComponentChildren;
  subscribed: boolean;
}

export function Embed({ filter, charts, legend, subscribed }: EmbedProps) {
  const problem = problemWords();
  return (
    <main class="embed">
      <h1>
        <a class="embed-title" title={filter} href={to.live(filter)} target="_blank" rel="noopener">
          {filter}
        </a>
      </h1>
      {problem !== "" && (
        <p class="embed-problem" role="status">
          {problem}
        </p>
      )}
      {charts ?? (problem === "" && <p class="late soft">{emptyWords(subscribed)}</p>)}
      {legend}
    </main>
  );
}

/** Why an embedded chart shows nothing new, in a few words; "" while it is live. */
function problemWords(): string {
  if (refusal.value) return refusalTitle();
  if (isLive.value) return "";
  const { state } = link.value;
  const gateway = state === "waiting" || state === "closed";
  if (!gateway && state !== "open") return "";
  return `${gateway ? t("No connection") : t("The broker is away")}${asOf() ? `, ${asOf()}` : ""}`;
}

function emptyWords(subscribed: boolean): string {
  if (link.value.state !== "open") return t("Connecting…");
  return subscribed ? t("No numbers yet.") : t("Waiting…");
}

/** What stands in the place of the chart while nothing came. */

import { useEffect, useState } from "preact/hooks";
import { t } from "../../core/words.ts";
import { Empty, Explain } from "../../parts/bits.tsx";
import { setParams } from "../../router.ts";
import { link } from "../../session.ts";
import { DEFAULT_RANGE, rangeLabel } from "./ranges.tsx";

interface NothingProps {
  filter: string;
  refusal: string | null;
  subscribed: boolean;
}

export function Nothing({ filter, refusal, subscribed }: NothingProps) {
  // Wait a moment before saying that there is nothing.
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 600);
    return () => clearTimeout(timer);
  }, []);
  if (refusal !== null) {
    return (
      <Empty title={t("The gateway refused this")}>
        <p>{refusal}</p>
        <button type="button" onClick={() => setParams({ since: null, from: null, to: null })}>
          {t("Show the last")} {rangeLabel(DEFAULT_RANGE)}
        </button>
      </Empty>
    );
  }
  if (!late || !subscribed)
    return <p class="late soft">{link.value.state === "open" ? t("Waiting…") : t("Connecting…")}</p>;
  return (
    <Empty title={t("Nothing here yet")}>
      <p>
        {t("This page listens to")} <code>{filter}</code> {t("and shows the first message as it comes.")}
      </p>
      <Explain filter={filter} />
    </Empty>
  );
}

/** History as a file. */

import { useState } from "preact/hooks";
import * as api from "../../api.ts";
import { formatBytes } from "../../core/format.ts";
import { t } from "../../core/words.ts";
import { DownloadIcon } from "../../parts/icons.tsx";

export function Downloads({ filter, since }: { filter: string; since: string }) {
  const [said, setSaid] = useState("");
  const get = async (form: "csv" | "ndjson") => {
    setSaid("…");
    try {
      setSaid(formatBytes(await api.download(filter, since, form)));
    } catch (error) {
      setSaid((error as Error).message);
    }
  };
  return (
    <span class="downloads">
      <DownloadIcon />
      <button type="button" class="quiet" onClick={() => get("csv")} title={t("The last {since} as CSV", { since })}>
        CSV
      </button>
      <button
        type="button"
        class="quiet"
        onClick={() => get("ndjson")}
        title={t("The last {since} as NDJSON", { since })}
      >
        NDJSON
      </button>
      <span class="soft num said" role="status">
        {said}
      </span>
    </span>
  );
}

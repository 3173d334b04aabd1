/** The page `/flash` within the dashboard: the gateway offers the broker, relays the first reading and shows the device. */
import { useEffect, useState } from "preact/hooks";
import * as api from "../api.ts";
import { t } from "../core/words.ts";
import { base, to } from "../router.ts";
import { openFeed } from "../session.ts";

type Page = typeof import("./flash/flash.tsx");

export function Flashing() {
  const [page, setPage] = useState<Page | null>(null);
  useEffect(() => {
    // Nothing is listened to yet, but the header says how it is with the gateway.
    const feed = openFeed({ topics: [], since: "now", isCourtesy: true, onMessage: () => undefined });
    return () => feed.close();
  }, []);
  useEffect(() => {
    import("./flash/flash.tsx").then(setPage, () => undefined);
  }, []);
  if (page === null) return <p class="late soft">{t("Asking the gateway…")}</p>;
  return (
    <page.Flash
      images={new URL("flash/", base)}
      broker={api.brokerForSensors}
      keepKey={api.keepKey}
      show={(id) => to.live(`sensors/${id}/state`)}
      watch={(id, onReading) => listen(`sensors/${id}/state`, "now", onReading)}
      describe={(id, onMeta) => listen(`sensors/${id}/meta`, "last", onMeta)}
    />
  );
}

/** Calls back for each object on a topic; returns what ends that. */
function listen(
  topic: string,
  since: "now" | "last",
  onObject: (payload: Record<string, unknown>) => void,
): () => void {
  const feed = openFeed({
    topics: [topic],
    since,
    isCourtesy: true,
    onMessage: ({ payload }) => {
      if (typeof payload === "object" && payload !== null) onObject(payload as Record<string, unknown>);
    },
  });
  return () => feed.close();
}

/** How a board of ours is: why it started, memory, Wi-Fi, battery, its log, and a new program for it. */
import { useEffect, useState } from "preact/hooks";
import * as api from "../api.ts";
import { formatClock, formatSpan } from "../core/format.ts";
import { healthRows, type Line, lineOf, withLine } from "../core/health.ts";
import { t } from "../core/words.ts";
import { mayPublish, maySubscribe } from "../identity.ts";
import { openFeed, token } from "../session.ts";

const LEVEL_WORDS: Readonly<Record<Line["level"], string>> = {
  debug: t("detail"),
  info: "",
  warning: t("warning"),
  error: t("error"),
};

export function Health({ base }: { base: string }) {
  const [diag, setDiag] = useState<Readonly<Record<string, unknown>> | null>(null);
  const [lines, setLines] = useState<readonly Line[]>([]);
  useEffect(() => {
    if (!maySubscribe(`${base}/#`)) return;
    const feeds = [
      openFeed({
        topics: [`${base}/diag`],
        since: "last",
        isCourtesy: true,
        onMessage: ({ payload }) =>
          setDiag(typeof payload === "object" && payload !== null ? (payload as Record<string, unknown>) : null),
      }),
      openFeed({
        topics: [`${base}/log`],
        since: "1h",
        isCourtesy: true,
        onMessage: ({ payload }) => {
          const line = lineOf(payload);
          if (line) setLines((before) => withLine(before, line));
        },
      }),
    ];
    return () => {
      for (const feed of feeds) feed.close();
    };
  }, [base, token.value]);
  const rows = diag === null ? [] : healthRows(diag);
  if (rows.length === 0 && lines.length === 0) return null;
  return (
    <>
      {rows.length > 0 && (
        <section aria-labelledby="health-title">
          <h2 id="health-title">{t("The board")}</h2>
          <dl class="health">
            {rows.map(([name, value]) => (
              <div key={name} class="item">
                <dt>{name}</dt>
                <dd class="value num">{value}</dd>
              </div>
            ))}
          </dl>
          {mayPublish(`${base}/cmd`) !== false && <Update base={base} />}
        </section>
      )}
      {lines.length > 0 && (
        <section class="log" aria-labelledby="log-title">
          <h2 id="log-title">{t("Its log, newest first")}</h2>
          <ol>
            {lines.map((line) => (
              <li key={`${line.boot}:${line.n}:${line.before}`} class={line.level}>
                <span class="num soft">
                  {line.ts === null ? formatSpan(line.up * 1000) : formatClock(line.ts * 1000)}
                </span>
                <span>
                  {LEVEL_WORDS[line.level] && <b>{LEVEL_WORDS[line.level]}: </b>}
                  {line.text}
                  {line.before && <span class="soft"> ({t("before the reset")})</span>}
                </span>
              </li>
            ))}
          </ol>
        </section>
      )}
    </>
  );
}

function Update({ base }: { base: string }) {
  const [said, setSaid] = useState<{ text: string; failed: boolean } | null>(null);
  return (
    <div class="update">
      <button
        type="button"
        onClick={() =>
          api.publish(`${base}/cmd`, '{"update":true}', false).then(
            () =>
              setSaid({
                text: t("Asked. The board fetches it from whoever runs “sensors-flash update --serve”."),
                failed: false,
              }),
            (error: Error) => setSaid({ text: error.message, failed: true }),
          )
        }
      >
        {t("Update its program")}
      </button>
      <span class={`told${said?.failed ? " failed" : ""}`} role="status">
        {said?.text ?? ""}
      </span>
    </div>
  );
}

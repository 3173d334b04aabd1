/** A link to a view: with a token that reads only what is on it, where the gateway makes such tokens. */

import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../../api.ts";
import { formatDateTime } from "../../core/format.ts";
import { filtersOf, type SavedView, savedText } from "../../core/saved.ts";
import { t } from "../../core/words.ts";
import { identity, maySubscribe } from "../../identity.ts";
import { CopyButton } from "../../parts/copy.tsx";
import { to } from "../../router.ts";
import { metaFilter } from "../../units.ts";

const TIMES: readonly (readonly [seconds: number, label: string])[] = [
  [3_600, t("an hour")],
  [86_400, t("a day")],
  [7 * 86_400, t("a week")],
  [30 * 86_400, t("30 days")],
  [365 * 86_400, t("a year")],
];

/** What the link is to read: the parts, and the names and units of their sensors, as far as its maker may. */
function readBy(view: SavedView): string[] {
  const filters = filtersOf(view);
  const meta = filters.flatMap((filter) => metaFilter(filter) ?? []).filter((filter) => maySubscribe(filter));
  return [...new Set([...filters, ...meta])];
}

export function ShareDialog({ view, onClose }: { view: SavedView; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const most = identity.value?.shareSeconds ?? null;
  const mayShare = most !== null && identity.value?.anonymous === false;
  const times = TIMES.filter(([seconds]) => most !== null && seconds <= most);
  const offered = times.length > 0 || most === null ? times : [[most, t("as long as may be")] as const];
  const [seconds, setSeconds] = useState(offered[0]?.[0] ?? 0);
  const [made, setMade] = useState<{ token: string; expires: number } | null>(null);
  const [problem, setProblem] = useState("");
  useEffect(() => dialog.current?.showModal(), []);
  const plain = to.saved("", `&is=${encodeURIComponent(savedText(view))}`);
  const filters = readBy(view);
  const link = made ? `${plain}#token=${made.token}` : plain;
  return (
    <dialog ref={dialog} class="ask" aria-labelledby="share-title" onClose={onClose}>
      <h2 id="share-title">{t("Share this view")}</h2>
      {mayShare ? (
        <>
          <p>
            {t(
              "Whoever has the link may read this, and nothing else, until it ends or whoever runs the gateway calls it back.",
            )}
          </p>
          <ul>
            {filters.map((filter) => (
              <li key={filter}>
                <code>{filter}</code>
              </li>
            ))}
          </ul>
          <form
            class="row"
            onSubmit={(event) => {
              event.preventDefault();
              api.share(filters, seconds).then(
                (answer) => {
                  setMade(answer);
                  setProblem("");
                },
                (error: Error) => setProblem(error.message),
              );
            }}
          >
            <label class="select">
              <span>{t("For")}</span>
              <select
                value={seconds}
                onChange={(event) => {
                  setSeconds(Number(event.currentTarget.value));
                  setMade(null);
                }}
              >
                {offered.map(([value, label]) => (
                  <option key={value} value={value}>
                    {label}
                  </option>
                ))}
              </select>
            </label>
            <button type="submit" class="primary">
              {t("Make a link")}
            </button>
          </form>
        </>
      ) : (
        <p>{t("The link has all of the view. Whoever opens it sees what he may read himself.")}</p>
      )}
      {(made || !mayShare) && (
        <>
          <p class="row">
            <input
              class="link mono"
              readOnly
              aria-label={t("Link")}
              value={link}
              onFocus={(event) => event.currentTarget.select()}
            />
            <CopyButton text={link} label={t("link")} />
          </p>
          {made && (
            <p class="soft">
              {t("It ends at")} {formatDateTime(made.expires)}.
            </p>
          )}
        </>
      )}
      <p class="problem" role="status">
        {problem}
      </p>
      <div class="row">
        <button type="button" onClick={() => dialog.current?.close()}>
          {t("Close")}
        </button>
      </div>
    </dialog>
  );
}

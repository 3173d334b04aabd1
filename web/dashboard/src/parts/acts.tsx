/** What can be done with a topic where it is seen: publish there, copy it, clear what the broker keeps of it. */

import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../api.ts";
import { counted, formatCount } from "../core/format.ts";
import { t } from "../core/words.ts";
import { mayPublish } from "../identity.ts";
import { to } from "../router.ts";
import { CopyButton } from "./copy.tsx";

interface ActsProps {
  /** What is seen; null where only what is below it is. */
  topic: string | null;
  /** The filter of all that is below; null where nothing is. */
  below?: string | null;
  /** Its newest payload as text, to be copied. */
  value?: string | undefined;
  /** A level on the way: nothing is published to it, so that there is nothing to clear. */
  isLevel?: boolean;
}

export function TopicActs({ topic, below = null, value, isLevel = false }: ActsProps) {
  const [clearing, setClearing] = useState<readonly string[] | null>(null);
  const may = topic !== null && mayPublish(topic) !== false;
  return (
    <div class="acts">
      {may && <a href={to.publish(topic ?? "")}>{t("Publish here")}</a>}
      {topic !== null && <CopyButton text={topic} label={t("topic")} word={t("Copy topic")} />}
      {value !== undefined && <CopyButton text={value} label={t("value")} word={t("Copy value")} />}
      {may && !isLevel && (
        <button type="button" class="quiet" onClick={() => setClearing([topic ?? ""])}>
          {t("Clear retained…")}
        </button>
      )}
      {below !== null && mayPublish() !== false && (
        <button type="button" class="quiet" onClick={() => setClearing([below])}>
          {t("Clear all below…")}
        </button>
      )}
      {clearing && <ClearDialog filters={clearing} onClose={() => setClearing(null)} />}
    </div>
  );
}

/** Names are listed up to here; behind it a number says the rest. */
const NAMED = 8;

interface ClearProps {
  filters: readonly string[];
  onClose: () => void;
  /** What goes with them, in words. */
  also?: string;
}

/** Asks before the broker forgets: how many topics, and which first. */
export function ClearDialog({ filters, onClose, also = "" }: ClearProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [topics, setTopics] = useState<readonly string[] | null>(null);
  const [withheld, setWithheld] = useState(0);
  const [done, setDone] = useState<number | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const ending = useRef(new AbortController());
  useEffect(() => {
    dialog.current?.showModal();
    const { signal } = ending.current;
    retainedOf(filters, signal).then(
      (found) => {
        const mine = found.filter((topic) => mayPublish(topic) !== false);
        setWithheld(found.length - mine.length);
        setTopics(mine);
      },
      (error: Error) => signal.aborted || setProblem(error.message),
    );
    return () => ending.current.abort();
  }, []);
  const clear = async () => {
    setDone(0);
    try {
      for (const [index, topic] of (topics ?? []).entries()) {
        if (ending.current.signal.aborted) return;
        await clearOne(topic);
        setDone(index + 1);
      }
      dialog.current?.close();
    } catch (error) {
      setProblem((error as Error).message);
    }
  };
  const count = topics?.length ?? 0;
  const messages = counted(count, "retained message");
  return (
    <dialog ref={dialog} class="ask" aria-labelledby="ask-title" onClose={onClose}>
      <h2 id="ask-title">
        {topics === null
          ? t("Looking for what the broker keeps…")
          : count === 0
            ? t("Nothing to clear")
            : t("Clear {messages}?", { messages })}
      </h2>
      {topics !== null && count === 0 && <p>{t("The broker keeps no message here that you may clear.")}</p>}
      {count > 0 && (
        <>
          <p>
            {t("The broker forgets")} {count === 1 ? t("it") : t("them")}
            {t("; whoever subscribes later gets nothing. This can’t be undone.")} {also}
          </p>
          <ul>
            {topics?.slice(0, NAMED).map((topic) => (
              <li key={topic}>
                <code>{topic}</code>
              </li>
            ))}
            {count > NAMED && (
              <li class="soft">
                {t("and")} {formatCount(count - NAMED)} {t("more")}
              </li>
            )}
          </ul>
        </>
      )}
      {withheld > 0 && (
        <p class="soft">
          {counted(withheld, "more is", "more are")} {t("not yours to clear.")}
        </p>
      )}
      <p class="problem" role="status">
        {problem ??
          (done === null ? "" : t("{done} of {count} cleared", { done: formatCount(done), count: formatCount(count) }))}
      </p>
      <div class="row">
        <button type="button" onClick={() => dialog.current?.close()}>
          {done === null && count > 0 ? t("Keep") : t("Close")}
        </button>
        {count > 0 && (
          <button type="button" class="danger" disabled={done !== null && problem === null} onClick={clear}>
            {t("Clear")} {formatCount(count)}
          </button>
        )}
      </div>
    </dialog>
  );
}

async function retainedOf(filters: readonly string[], signal: AbortSignal): Promise<string[]> {
  const found = new Set<string>();
  for (const filter of filters)
    for await (const page of api.listTopics(filter, signal))
      for (const { topic, retained } of page) if (retained) found.add(topic);
  return [...found];
}

/** Gateways take so many messages a second from each address: it is tried again when that is over. */
const PATIENCE_MS = [500, 1000, 2000, 4000];

async function clearOne(topic: string): Promise<void> {
  for (const wait of [...PATIENCE_MS, null]) {
    try {
      await api.publish(topic, "", true);
      return;
    } catch (error) {
      if (wait === null || !(error instanceof api.ApiError) || error.status !== 429) throw error;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

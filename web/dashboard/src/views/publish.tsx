/** Publish: one message to one topic, and what was sent before. */

import { signal } from "@preact/signals";
import type { LiveError } from "gateway-live";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { topicProblem } from "../core/filter.ts";
import { formatBytes, formatClock } from "../core/format.ts";
import { failureWords, type Sent, sentOf } from "../core/sent.ts";
import { oneLine } from "../core/values.ts";
import { t } from "../core/words.ts";
import { identity, mayPublish } from "../identity.ts";
import { Empty, SignIn } from "../parts/bits.tsx";
import { route, setParams, to } from "../router.ts";
import { type Feed, openFeed } from "../session.ts";

const KEY = "gateway.sent";
const KEPT = 50;

function stored(): Sent[] {
  try {
    return sentOf(sessionStorage.getItem(KEY));
  } catch {
    return [];
  }
}

const sent = signal<readonly Sent[]>(stored());

function keep(list: readonly Sent[]): void {
  sent.value = list.slice(0, KEPT);
  try {
    sessionStorage.setItem(KEY, JSON.stringify(sent.value));
  } catch {
    // Without storage, or with it full, the list lives as long as the page.
  }
}

type Kind = "json" | "text" | "empty" | "almost";

/** What a payload will be sent as; "almost" looks like JSON and isn't. */
function kindOf(text: string): Kind {
  if (text === "") return "empty";
  try {
    JSON.parse(text);
    return "json";
  } catch {
    return /^\s*[[{"]/.test(text) ? "almost" : "text";
  }
}

const KIND_WORDS: Record<Kind, string> = {
  json: "JSON",
  text: t("Plain text"),
  empty: t("Empty"),
  almost: t("Not valid JSON: it will be sent as plain text"),
};

export function Publish() {
  const params = route.value.params;
  const topic = params.get("topic") ?? "";
  const [payload, setPayload] = useState("");
  const [qos, setQos] = useState<0 | 1 | 2>(0);
  const [retain, setRetain] = useState(false);
  const [touched, setTouched] = useState(false);
  const feed = useRef<Feed | null>(null);
  const field = useRef<HTMLInputElement>(null);

  useLayoutEffect(() => {
    const opened = openFeed({ topics: [], since: "now", onMessage: () => undefined });
    feed.current = opened;
    return () => opened.close();
  }, []);
  useEffect(() => {
    if (topic === "") field.current?.focus();
  }, []);

  if (mayPublish() === false) {
    return (
      <>
        <header class="view-head">
          <h1>{t("Publish")}</h1>
        </header>
        <Empty title={t("Reading only")}>
          <p>
            {identity.value?.anonymous
              ? t("Visitors without a token may read here, but not publish.")
              : t("“{value}” may read here, but not publish.", { value: identity.value?.name ?? "" })}
          </p>
          {identity.value?.tokens !== false && <SignIn />}
        </Empty>
      </>
    );
  }

  const problem = topicProblem(topic);
  const refused = problem === null && mayPublish(topic) === false;
  const kind = kindOf(payload);
  const publish = () => {
    setTouched(true);
    if (problem !== null || refused || !feed.current) return;
    const entry: Sent = { time: Date.now(), topic, payload, qos, retain, outcome: null, failed: false };
    keep([entry, ...sent.value]);
    const settle = (outcome: string, failed: boolean) =>
      keep(sent.value.map((other) => (other === entry ? { ...entry, outcome, failed } : other)));
    // The text as it stands: read and written again, its numbers and spaces would be others.
    feed.current.live.publish(topic, payload, { qos, retain }).then(
      () => settle(t("sent"), false),
      (error: LiveError) => settle(failureWords(error), true),
    );
  };
  const again = (entry: Sent) => {
    setParams({ topic: entry.topic });
    setPayload(entry.payload);
    setQos(entry.qos);
    setRetain(entry.retain);
    field.current?.focus();
  };
  return (
    <>
      <header class="view-head">
        <h1>{t("Publish")}</h1>
      </header>
      <div class="publish">
        <form
          onSubmit={(event) => {
            event.preventDefault();
            publish();
          }}
        >
          <label for="topic">{t("Topic")}</label>
          <input
            ref={field}
            id="topic"
            class="mono"
            data-search
            value={topic}
            spellcheck={false}
            autocapitalize="off"
            autoComplete="off"
            placeholder="sensors/kitchen/cmd"
            aria-invalid={(touched && problem !== null) || refused}
            aria-describedby="topic-problem"
            onInput={(event) => setParams({ topic: event.currentTarget.value })}
            onBlur={() => setTouched(topic !== "")}
          />
          <p id="topic-problem" class="problem" role="status">
            {touched && problem ? problem : refused ? t("Your grants don’t cover this topic.") : ""}
          </p>
          <label for="payload">{t("Payload")}</label>
          <textarea
            id="payload"
            class="mono"
            rows={8}
            spellcheck={false}
            value={payload}
            placeholder={'{"interval": 5}'}
            aria-describedby="payload-kind"
            onInput={(event) => setPayload(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) publish();
            }}
          />
          <p id="payload-kind" class={`soft num${kind === "almost" ? " warn" : ""}`}>
            {KIND_WORDS[kind]}, {formatBytes(new TextEncoder().encode(payload).length)}
            {kind === "empty" && retain ? t(": deletes the retained message of this topic") : ""}
          </p>
          <div class="row options">
            <fieldset class="segments">
              <legend>QoS</legend>
              {([0, 1, 2] as const).map((level) => (
                <button
                  key={level}
                  type="button"
                  aria-pressed={qos === level}
                  title={QOS_WORDS[level]}
                  onClick={() => setQos(level)}
                >
                  {level}
                </button>
              ))}
            </fieldset>
            <label class="check">
              <input type="checkbox" checked={retain} onChange={(event) => setRetain(event.currentTarget.checked)} />
              {t("Retained")}
            </label>
            <span class="spread" />
            <button type="submit" class="primary" disabled={topic === "" || refused}>
              {t("Publish")}
            </button>
          </div>
          <p class="soft">
            {QOS_WORDS[qos]}. {retain ? t("The broker keeps it for whoever comes later.") : ""} <kbd>Ctrl</kbd>{" "}
            <kbd>Enter</kbd> {t("sends.")}
          </p>
        </form>
        <section class="sent" aria-labelledby="sent-title">
          <div class="section-head">
            <h2 id="sent-title">{t("Sent from this tab")}</h2>
            {sent.value.length > 0 && (
              <button type="button" class="quiet" onClick={() => keep([])}>
                {t("Clear")}
              </button>
            )}
          </div>
          {sent.value.length === 0 ? (
            <p class="soft">{t("Nothing yet. What you send is listed here, to send it again.")}</p>
          ) : (
            <ul>
              {sent.value.map((entry) => (
                <li key={`${entry.time}${entry.topic}`} class={entry.failed ? "failed" : ""}>
                  <span class="num">{formatClock(entry.time)}</span>
                  <span class="what">
                    <a href={to.live(entry.topic)}>{entry.topic}</a>
                    <code title={oneLine(entry.payload, 600)}>
                      {entry.payload === "" ? t("(empty)") : oneLine(entry.payload, 120)}
                    </code>
                    <span class="soft" role="status">
                      {entry.outcome ?? t("on its way…")}
                      {entry.qos > 0 && t(", QoS {qos}", { qos: entry.qos })}
                      {entry.retain && t(", retained")}
                    </span>
                  </span>
                  <button
                    type="button"
                    class="quiet"
                    onClick={() => again(entry)}
                    aria-label={t("Use again: {topic}", { topic: entry.topic })}
                  >
                    {t("Use again")}
                  </button>
                </li>
              ))}
            </ul>
          )}
        </section>
      </div>
    </>
  );
}

const QOS_WORDS: Record<0 | 1 | 2, string> = {
  0: t("At most once: fast, and gone if the broker is away"),
  1: t("At least once: the broker confirms it"),
  2: t("Exactly once: confirmed twice, slowest"),
};

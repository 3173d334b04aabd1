/** Small parts that several views share. */

import { CLOSE_CODES } from "gateway-live/protocol";
import type { ComponentChildren } from "preact";
import { useEffect, useId, useState } from "preact/hooks";
import * as api from "../api.ts";
import { formatAge, formatClock, formatElapsed } from "../core/format.ts";
import { archiveWords } from "../core/losses.ts";
import { type Series, sparkPath } from "../core/series.ts";
import { closeWords, stepWords, verdictWords } from "../core/told.ts";
import { t } from "../core/words.ts";
import { to } from "../router.ts";
import {
  archive,
  endsAt,
  gatewayNow,
  hasExpired,
  hasSeen,
  link,
  refusal,
  signIn,
  signOut,
  stoodStillAt,
  token,
  upstream,
} from "../session.ts";

interface SparklineProps {
  series: Series | null;
  from: number;
  to: number;
  width: number;
  height: number;
  label: string;
}

/** A line with a dot at its newest value; the label says in words what a sighted reader sees. */
export function Sparkline({ series, from, to: until, width, height, label }: SparklineProps) {
  const path = series ? sparkPath(series, from, until, width - 4, height) : "";
  const last = /([\d.]+) (-?[\d.]+)(?:h0\.01)?$/.exec(path);
  return (
    <svg class="spark" width={width} height={height} viewBox={`-2 0 ${width} ${height}`} role="img" aria-label={label}>
      <path d={path} />
      {last && <circle cx={last[1]} cy={last[2]} r="2" />}
    </svg>
  );
}

interface AgeProps {
  time: number | null;
  now: number;
  /** So that it compares with its neighbours. */
  inColumn?: boolean;
  /** "5 s ago". */
  inSentence?: boolean;
}

/** How long ago something was. */
export function Age({ time, now, inColumn, inSentence }: AgeProps) {
  if (time === null) return <span class="age none">{t("never")}</span>;
  const age = formatAge(now - time);
  return (
    <time class="age" dateTime={new Date(time).toISOString()} title={new Date(time).toLocaleString()}>
      {inColumn ? formatElapsed(now - time) : inSentence && age !== "now" ? t("{value} ago", { value: age }) : t(age)}
    </time>
  );
}

/** What a view says when it has nothing to show: what is missing, and what to do about it. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <section class="empty">
      <h2>{title}</h2>
      {children}
    </section>
  );
}

/** Walks from the broker to this page and names the first step that fails. */
export function Explain({ filter }: { filter: string }) {
  const [answer, setAnswer] = useState<api.Explanation | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const up = upstream.value?.connected;
  useEffect(() => {
    const aborter = new AbortController();
    const ask = () =>
      api.explain(filter, aborter.signal).then(
        (explanation) => {
          setAnswer(explanation);
          setProblem(null);
        },
        (error: unknown) => {
          if (aborter.signal.aborted) return;
          setProblem(error instanceof api.ApiError && error.status === 404 ? null : String((error as Error).message));
        },
      );
    ask();
    const timer = setInterval(ask, 5000);
    return () => {
      aborter.abort();
      clearInterval(timer);
    };
    // the answer changes when the broker comes or goes
  }, [filter, up]);
  if (problem !== null)
    return (
      <p class="soft">
        {t("The gateway couldn’t explain it:")} {problem}
      </p>
    );
  if (answer === null) return null;
  const verdict = verdictWords(answer.failed, answer.answer);
  return (
    <div class="explain">
      <p class="verdict">{sentence(verdict)}</p>
      {answer.failed !== null && verdict !== answer.answer && (
        <p class="said" lang="en">
          {sentence(answer.answer)}
        </p>
      )}
      {answer.near.length > 0 && (
        <p class="near">
          {t("Did you mean")}{" "}
          {answer.near.slice(0, 5).map(({ topic, why }, index) => (
            <span key={topic} title={why}>
              {index > 0 && ", "}
              <a href={to.live(topic)}>
                <code>{topic}</code>
              </a>
            </span>
          ))}
          ?
        </p>
      )}
      <details>
        <summary>
          {answer.steps.filter((step) => step.ok).length} {t("of")} {answer.steps.length} {t("steps are fine")}
        </summary>
        <ol>
          {answer.steps.map((step) => (
            <li key={step.name} class={step.ok === null ? "" : step.ok ? "good" : "bad"}>
              <span class="mark" aria-hidden="true">
                {step.ok === null ? "–" : step.ok ? "✓" : "✕"}
              </span>
              <span>
                <b>{sentence(stepWords(step.name))}</b>
                <span class="sr"> {step.ok === null ? t("(not known)") : step.ok ? t("(fine)") : t("(fails)")}</span>
                {step.detail !== answer.answer && (
                  <span class="soft" lang="en">
                    {" "}
                    {step.detail}
                  </span>
                )}
              </span>
            </li>
          ))}
        </ol>
      </details>
    </div>
  );
}

/** With a capital in front. */
const sentence = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);

/** Asks for a token where the gateway wants one. */
export function SignIn() {
  const [text, setText] = useState("");
  const id = useId();
  return (
    <form
      class="sign-in"
      onSubmit={(event) => {
        event.preventDefault();
        const trimmed = text.trim();
        if (trimmed !== "") signIn(trimmed);
      }}
    >
      <label for={id}>{t("Access token")}</label>
      <div class="row">
        <input
          id={id}
          type="password"
          autoComplete="off"
          spellcheck={false}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <button type="submit" class="primary" disabled={text.trim() === ""}>
          {t("Sign in")}
        </button>
      </div>
      <p class="soft">
        {t("Whoever runs this gateway makes one with")} <code>gateway token</code>
        {t(". It stays in this tab and goes when you close it.")}
      </p>
    </form>
  );
}

/** Why nothing may be read, in two or three words. */
export function refusalTitle(): string {
  const { code = "", reason = null, message = "" } = refusal.value ?? {};
  if (token.value === null) return t("Sign in to see this");
  if (code === String(CLOSE_CODES.TOKEN_EXPIRED) || reason === "expired" || /expired/i.test(message))
    return t("Your token has expired");
  return code === "forbidden" || code === String(CLOSE_CODES.FORBIDDEN)
    ? t("Your token doesn’t cover this")
    : t("This token isn’t valid");
}

/** Stands in the place of a view that this visitor may not see. */
export function SignInCard() {
  const said = refusal.value;
  if (!said) return null;
  return (
    <section class="sign-in-card" aria-labelledby="sign-in-title">
      <h1 id="sign-in-title">{refusalTitle()}</h1>
      <p role="status">{sentence(said.message)}</p>
      <SignIn />
      {token.value !== null && (
        <p>
          <button type="button" class="quiet" onClick={signOut}>
            {t("Go on without a token")}
          </button>
        </p>
      )}
    </section>
  );
}

/** "as of 20:26:46", where the view stands still; "" while it is live. */
export function asOf(): string {
  const at = stoodStillAt();
  return at === null ? "" : t("as of {clock}", { clock: formatClock(at) });
}

/** What stands between this page and the broker, if anything: one calm line above the view. */
export function Banner() {
  const state = link.value;
  const broker = upstream.value;
  const kept = archive.value;
  if (refusal.value) return null;
  if (hasExpired.value) return <Expired />;
  if (state.state === "waiting" || state.state === "closed") {
    const why = closeWords(state.code, state.reason);
    const wait = state.retryAt === null ? null : Math.max(0, Math.ceil((state.retryAt - Date.now()) / 1000));
    return (
      <div class="banner bad" role="status">
        <strong>{t("No connection to the gateway.")}</strong>{" "}
        {state.state === "closed" ? (
          <>
            {t("It closed the connection")}
            {why ? `: ${why}` : ""}.{" "}
            <button type="button" onClick={() => location.reload()}>
              {t("Try again")}
            </button>
          </>
        ) : (
          t("{value}Next try{value2}.", {
            value: asOf() ? t("What you see is {value}. ", { value: asOf() }) : "",
            value2: wait ? t(" in {wait} s", { wait }) : t(" now"),
          })
        )}
      </div>
    );
  }
  if (broker && !broker.connected) {
    return (
      <div class="banner warn" role="status">
        <strong>
          {broker.lostAt === null
            ? t("The gateway hasn’t reached the broker yet")
            : t("The gateway has lost the broker")}
        </strong>
        {broker.reason ? ` (${broker.reason})` : ""}.{" "}
        {(broker.lostAt !== null || hasSeen()) && t("What you see is {value}. ", { value: asOf() })}
        {t("It keeps trying.")}
      </div>
    );
  }
  if (kept && !kept.kept) {
    return (
      <div class="banner warn" role="status">
        <strong>{t("The gateway’s archive doesn’t keep what arrives")}</strong>: {archiveWords(kept.reason)}
        {t(". What you see is live, but a restart would lose it. It keeps trying.")}
      </div>
    );
  }
  if (endsAt.value !== null) return <Expiring at={endsAt.value} />;
  return null;
}

/** What is shown stays, and stands still: another token brings it up to date. */
function Expired() {
  return (
    <section class="banner warn expired" aria-labelledby="expired-title">
      <div>
        <p role="status">
          <strong id="expired-title">{t("Your token has ended.")}</strong>{" "}
          {hasSeen() && t("What you see is {value}. ", { value: asOf() })}
          {t("Sign in to go on.")}
        </p>
        <SignIn />
        <button type="button" class="quiet" onClick={signOut}>
          {t("Go on without a token")}
        </button>
      </div>
    </section>
  );
}

function Expiring({ at }: { at: number }) {
  return (
    <div class="banner warn" role="status">
      <strong>
        {t("Your token ends at")} {formatClock(at)}.
      </strong>{" "}
      {t("Then nothing new comes until you sign in again, under")} <a href={to.connection()}>{t("Connection")}</a>.
    </div>
  );
}

/** "until 14:03", as far away as it is. */
export function Until({ time }: { time: number }) {
  const left = time - gatewayNow();
  const clock = left > 24 * 3_600_000 ? new Date(time).toLocaleString() : formatClock(time);
  return (
    <span>
      {clock} ({left > 0 ? t("{left} left", { left: formatAge(left) }) : t("over")})
    </span>
  );
}

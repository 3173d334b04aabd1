/** Connection: how well this page is connected, what was lost on the way, and who it is taken for. */

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Delays } from "../core/delays.ts";
import { counted, formatCount, formatRate, formatSpan } from "../core/format.ts";
import { archiveWords, gapWords } from "../core/losses.ts";
import { closeWords } from "../core/told.ts";
import { t } from "../core/words.ts";
import { identity, readable } from "../identity.ts";
import { chooseLanguage, chosenLanguage, LANGUAGE_NAMES, LANGUAGES, language } from "../language.ts";
import { Explain, SignIn, Until } from "../parts/bits.tsx";
import { useTicker } from "../parts/ticker.ts";
import { base, route, setParams } from "../router.ts";
import {
  archive,
  clockSkew,
  gatewayNow,
  isLive,
  link,
  losses,
  openFeed,
  refusal,
  roundTrip,
  signOut,
  token,
  totals,
  upstream,
} from "../session.ts";
import { chooseTheme, chosen } from "../theme.ts";

/** Messages a second beyond which delays are measured on a sample of topics. */
const BUSY = 300;
const SAMPLE = 8;

const STATE_WORDS = {
  connecting: t("Connecting"),
  open: t("Connected"),
  waiting: t("Cut off, trying again"),
  paused: t("Paused while hidden"),
  closed: t("Closed"),
};

export function Connection() {
  useTicker(2);
  const delays = useRef({
    device: new Delays(),
    gateway: new Delays(),
    screen: new Delays(),
    total: new Delays(),
  }).current;
  const [question, setQuestion] = useState(route.value.params.get("explain") ?? "");

  const known = identity.value !== undefined;
  useLayoutEffect(() => {
    if (!known) return undefined;
    let painting = false;
    let hiddenTimes = 0;
    const onHide = () => {
      hiddenTimes++;
    };
    document.addEventListener("visibilitychange", onHide);
    const heard = new Set<string>();
    let everything = true;
    const opened = openFeed({
      // Unthinned: a message that waited because it was one too many for a second says nothing of the way.
      topics: readable(),
      since: "now",
      onMessage: (message) => {
        if (message.skipped || message.retained) return;
        if (heard.size < SAMPLE) heard.add(message.topic);
        const arrived = Date.now();
        const skew = clockSkew() ?? 0;
        delays.gateway.note(Math.max(0, arrived - skew - message.time));
        const stamp = (message.payload as { ts?: unknown } | null)?.ts;
        // Seconds since 1970 with a fraction; anything else called ts is something else.
        if (typeof stamp === "number" && stamp > 1e9 && stamp < 1e10) {
          delays.device.note(message.time - stamp * 1000);
          delays.total.note(arrived - skew - stamp * 1000);
        }
        // A page that nobody sees isn't drawn: that would measure how long nobody looked.
        if (painting || document.visibilityState === "hidden") return;
        painting = true;
        const from = performance.now();
        const hides = hiddenTimes;
        requestAnimationFrame(() => {
          setTimeout(() => {
            painting = false;
            if (hides === hiddenTimes) delays.screen.note(performance.now() - from);
          });
        });
      },
    });
    const calm = setInterval(() => {
      // Too much to measure each: a few topics are as good a sample.
      if (!everything || totals.rate.read(gatewayNow()) < BUSY || heard.size === 0) return;
      everything = false;
      opened.live
        .subscribe([...heard], { since: "now" })
        .then(() => opened.live.unsubscribe(readable()))
        .catch(() => undefined);
    }, 1000);
    return () => {
      clearInterval(calm);
      document.removeEventListener("visibilitychange", onHide);
      opened.close();
    };
  }, [known]);
  const state = link.value;
  const broker = upstream.value;
  const skew = clockSkew();
  return (
    <>
      <header class="view-head">
        <h1>{t("Connection")}</h1>
      </header>
      <div class="cards">
        <section class="card" aria-labelledby="c-state">
          <h2 id="c-state">{t("State")}</h2>
          <dl>
            <dt>{t("Gateway")}</dt>
            <dd class={state.state === "open" ? "good" : "bad"}>
              {STATE_WORDS[state.state]}
              {state.code !== null && state.state !== "open" && (
                <span class="soft">
                  {" "}
                  ({[state.code, closeWords(state.code, state.reason)].filter(Boolean).join(", ")})
                </span>
              )}
            </dd>
            <dt>{t("Broker")}</dt>
            <dd class={broker === null ? "" : broker.connected ? "good" : "bad"}>
              {broker === null ? (
                <span class="soft">{t("not told")}</span>
              ) : broker.connected ? (
                t("Connected")
              ) : (
                `${broker.lostAt === null ? t("Not reached yet") : t("Lost")}${broker.reason ? `: ${broker.reason}` : ""}`
              )}
            </dd>
            {archive.value && (
              <>
                <dt>{t("Archive")}</dt>
                <dd class={archive.value.kept ? "good" : "bad"}>
                  {archive.value.kept
                    ? t("Kept again")
                    : t("Not kept: {reason}", { reason: archiveWords(archive.value.reason) })}
                </dd>
              </>
            )}
            <dt>{t("Address")}</dt>
            <dd>
              <code>{base.href}</code>
            </dd>
            <dt>{t("Cut off since this page opened")}</dt>
            <dd class="num">{totals.reconnects === 0 ? t("never") : `${totals.reconnects} ×`}</dd>
          </dl>
        </section>

        <section class="card" aria-labelledby="c-delay">
          <h2 id="c-delay">{t("Delay")}</h2>
          <Legs delays={delays} />
          <dl>
            <dt>{t("Round trip to the gateway")}</dt>
            <dd class="num">{roundTrip.value === null ? "–" : formatSpan(roundTrip.value)}</dd>
            <dt>{t("Clocks")}</dt>
            <dd>
              {skew === null ? (
                <span class="soft">{t("not compared yet")}</span>
              ) : skew === 0 ? (
                t("agree within a second")
              ) : skew > 0 ? (
                t("this machine is {span} ahead; allowed for", { span: formatSpan(Math.abs(skew)) })
              ) : (
                t("this machine is {span} behind; allowed for", { span: formatSpan(Math.abs(skew)) })
              )}
            </dd>
          </dl>
        </section>

        <section class="card" aria-labelledby="c-flow">
          <h2 id="c-flow">{t("Received")}</h2>
          <dl>
            <dt>{t("Now")}</dt>
            <dd class="num">{isLive.value ? formatRate(totals.rate.read(gatewayNow())) : "–"}</dd>
            <dt>{t("Since this page opened")}</dt>
            <dd class="num">{counted(totals.received, "message")}</dd>
            <dt>{t("Left out, as this page asked")}</dt>
            <dd class="num">{formatCount(totals.skipped)}</dd>
            {losses.value.length === 0 ? (
              <>
                <dt>{t("Lost")}</dt>
                <dd class="good">{t("none")}</dd>
              </>
            ) : (
              losses.value.map((entry) => (
                <LossRow key={entry.reason} reason={entry.reason} lost={entry.lost} gaps={entry.gaps} />
              ))
            )}
          </dl>
          <p class="soft">
            {t("“Left out” are older values of a topic that a newer one replaced before it was drawn.")}
          </p>
        </section>

        <section class="card" aria-labelledby="c-who">
          <h2 id="c-who">{t("Who am I")}</h2>
          <Who />
        </section>

        <section class="card wide" aria-labelledby="c-why">
          <h2 id="c-why">{t("Why do I see nothing?")}</h2>
          <form
            class="row"
            onSubmit={(event) => {
              event.preventDefault();
              setParams({ explain: question.trim() });
            }}
          >
            <label for="question" class="sr">
              {t("Topic or filter")}
            </label>
            <input
              id="question"
              class="mono"
              data-search
              placeholder="sensors/kitchen/state"
              value={question}
              spellcheck={false}
              autocapitalize="off"
              onInput={(event) => setQuestion(event.currentTarget.value)}
            />
            <button type="submit" disabled={question.trim() === ""}>
              {t("Explain")}
            </button>
          </form>
          {route.value.params.get("explain") ? (
            <Explain filter={route.value.params.get("explain") ?? ""} />
          ) : (
            <p class="soft">
              {t("Name a topic: the gateway walks from the broker to you and names the first step that fails.")}
            </p>
          )}
        </section>

        <section class="card" aria-labelledby="c-look">
          <h2 id="c-look">{t("Look")}</h2>
          <fieldset class="segments look">
            <legend class="sr">{t("Theme")}</legend>
            {(["auto", "light", "dark"] as const).map((entry) => (
              <button
                key={entry}
                type="button"
                aria-pressed={chosen.value === entry}
                onClick={() => chooseTheme(entry)}
              >
                {entry === "auto" ? t("As the system") : entry === "light" ? t("Light") : t("Dark")}
              </button>
            ))}
          </fieldset>
          <fieldset class="segments look">
            <legend class="sr">{t("Language")}</legend>
            {[null, ...LANGUAGES].map((entry) => (
              <button
                key={entry ?? ""}
                type="button"
                lang={entry ?? language}
                aria-pressed={chosenLanguage() === entry}
                onClick={() => chooseLanguage(entry)}
              >
                {entry === null ? t("As the browser") : LANGUAGE_NAMES[entry]}
              </button>
            ))}
          </fieldset>
        </section>
      </div>
    </>
  );
}

function LossRow({ reason, lost, gaps }: { reason: string; lost: number | null; gaps: number }) {
  return (
    <>
      <dt>
        {t("Lost:")} {gapWords(reason)}
      </dt>
      <dd class="bad num">
        {lost === null ? t("unknown how many") : formatCount(lost)} {t("in")} {counted(gaps, "gap")}
      </dd>
    </>
  );
}

const LEGS = [
  { key: "device", name: t("Device to gateway"), note: t("by the devices’ own clocks; broker included") },
  { key: "gateway", name: t("Gateway to this page"), note: "" },
  { key: "screen", name: t("Page to screen"), note: "" },
  { key: "total", name: t("Device to this page"), note: t("both of the first two, measured as one") },
] as const;

function Legs({ delays }: { delays: Record<(typeof LEGS)[number]["key"], Delays> }) {
  const medians = LEGS.map((leg) => delays[leg.key].percentile(50));
  const most = Math.max(1, ...medians.map((median) => Math.max(0, median ?? 0)));
  return (
    <ol class="legs">
      {LEGS.map((leg, index) => {
        const median = medians[index] ?? null;
        const high = delays[leg.key].percentile(95);
        return (
          <li key={leg.key}>
            <span class="leg-name">
              {leg.name}
              {leg.note && <span class="soft"> {leg.note}</span>}
            </span>
            <span class="leg-bar" aria-hidden="true">
              <span style={{ width: `${(Math.max(0, median ?? 0) / most) * 100}%` }} />
            </span>
            <span class="leg-value num">
              {median === null ? (
                <span class="soft">{t("nothing to measure")}</span>
              ) : (
                <>
                  {formatSpan(median)}{" "}
                  <span class="soft">
                    {t("95 % under")} {formatSpan(high ?? median)}
                  </span>
                </>
              )}
            </span>
          </li>
        );
      })}
    </ol>
  );
}

function Who() {
  const who = identity.value;
  const grants = (list: string[] | null) =>
    list === null ? (
      <span class="soft">{t("not told")}</span>
    ) : list.length === 0 ? (
      "nothing"
    ) : (
      <span class="grants">
        {list.map((filter) => (
          <code key={filter}>{filter}</code>
        ))}
      </span>
    );
  return (
    <>
      {who && (
        <dl>
          <dt>{t("Name")}</dt>
          <dd>{who.name}</dd>
          <dt>{t("Until")}</dt>
          <dd class="num">{who.expires === null ? t("no end") : <Until time={who.expires} />}</dd>
          <dt>{t("May read")}</dt>
          <dd>{grants(who.subscribe)}</dd>
          <dt>{t("May publish to")}</dt>
          <dd>{grants(who.publish)}</dd>
          {who.node && (
            <>
              <dt>{t("Answered by the node")}</dt>
              <dd>{who.node}</dd>
            </>
          )}
        </dl>
      )}
      {who?.notes.map((note) => (
        <p key={note} class="soft">
          {note}
        </p>
      ))}
      {who === null && <p class="soft">{t("This gateway doesn’t say who it takes you for.")}</p>}
      {who?.tokens === false ? (
        <p class="soft">{t("This gateway takes no tokens: whoever reaches it may do all of this.")}</p>
      ) : token.value === null ? (
        refusal.value === null && <SignIn />
      ) : (
        <p class="signed">
          {t("Signed in with a token.")}{" "}
          <button type="button" onClick={signOut}>
            {t("Sign out")}
          </button>
        </p>
      )}
    </>
  );
}

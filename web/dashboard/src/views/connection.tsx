/** Connection: how well this page is connected, what was lost on the way, and who it is taken for. */
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { Delays } from "../core/delays.ts";
import { counted, formatCount, formatRate, formatSpan } from "../core/format.ts";
import { archiveWords, gapWords } from "../core/losses.ts";
import { identity, readable } from "../identity.ts";
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
  connecting: "Connecting",
  open: "Connected",
  waiting: "Cut off, trying again",
  paused: "Paused while hidden",
  closed: "Closed",
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
        <h1>Connection</h1>
      </header>
      <div class="cards">
        <section class="card" aria-labelledby="c-state">
          <h2 id="c-state">State</h2>
          <dl>
            <dt>Gateway</dt>
            <dd class={state.state === "open" ? "good" : "bad"}>
              {STATE_WORDS[state.state]}
              {state.code !== null && state.state !== "open" && (
                <span class="soft">
                  {" "}
                  ({state.code}
                  {state.reason ? `, ${state.reason}` : ""})
                </span>
              )}
            </dd>
            <dt>Broker</dt>
            <dd class={broker === null ? "" : broker.connected ? "good" : "bad"}>
              {broker === null ? (
                <span class="soft">not told</span>
              ) : broker.connected ? (
                "Connected"
              ) : (
                `${broker.lostAt === null ? "Not reached yet" : "Lost"}${broker.reason ? `: ${broker.reason}` : ""}`
              )}
            </dd>
            {archive.value && (
              <>
                <dt>Archive</dt>
                <dd class={archive.value.kept ? "good" : "bad"}>
                  {archive.value.kept ? "Kept again" : `Not kept: ${archiveWords(archive.value.reason)}`}
                </dd>
              </>
            )}
            <dt>Address</dt>
            <dd>
              <code>{base.href}</code>
            </dd>
            <dt>Cut off since this page opened</dt>
            <dd class="num">{totals.reconnects === 0 ? "never" : `${totals.reconnects} ×`}</dd>
          </dl>
        </section>

        <section class="card" aria-labelledby="c-delay">
          <h2 id="c-delay">Delay</h2>
          <Legs delays={delays} />
          <dl>
            <dt>Round trip to the gateway</dt>
            <dd class="num">{roundTrip.value === null ? "–" : formatSpan(roundTrip.value)}</dd>
            <dt>Clocks</dt>
            <dd>
              {skew === null ? (
                <span class="soft">not compared yet</span>
              ) : skew === 0 ? (
                "agree within a second"
              ) : (
                `this machine is ${formatSpan(Math.abs(skew))} ${skew > 0 ? "ahead" : "behind"}; allowed for`
              )}
            </dd>
          </dl>
        </section>

        <section class="card" aria-labelledby="c-flow">
          <h2 id="c-flow">Received</h2>
          <dl>
            <dt>Now</dt>
            <dd class="num">{isLive.value ? formatRate(totals.rate.read(gatewayNow())) : "–"}</dd>
            <dt>Since this page opened</dt>
            <dd class="num">{counted(totals.received, "message")}</dd>
            <dt>Left out, as this page asked</dt>
            <dd class="num">{formatCount(totals.skipped)}</dd>
            {losses.value.length === 0 ? (
              <>
                <dt>Lost</dt>
                <dd class="good">none</dd>
              </>
            ) : (
              losses.value.map((entry) => (
                <LossRow key={entry.reason} reason={entry.reason} lost={entry.lost} gaps={entry.gaps} />
              ))
            )}
          </dl>
          <p class="soft">“Left out” are older values of a topic that a newer one replaced before it was drawn.</p>
        </section>

        <section class="card" aria-labelledby="c-who">
          <h2 id="c-who">Who am I</h2>
          <Who />
        </section>

        <section class="card wide" aria-labelledby="c-why">
          <h2 id="c-why">Why do I see nothing?</h2>
          <form
            class="row"
            onSubmit={(event) => {
              event.preventDefault();
              setParams({ explain: question.trim() });
            }}
          >
            <label for="question" class="sr">
              Topic or filter
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
              Explain
            </button>
          </form>
          {route.value.params.get("explain") ? (
            <Explain filter={route.value.params.get("explain") ?? ""} />
          ) : (
            <p class="soft">
              Name a topic: the gateway walks from the broker to you and names the first step that fails.
            </p>
          )}
        </section>

        <section class="card" aria-labelledby="c-look">
          <h2 id="c-look">Look</h2>
          <fieldset class="segments">
            <legend class="sr">Theme</legend>
            {(["auto", "light", "dark"] as const).map((entry) => (
              <button
                key={entry}
                type="button"
                aria-pressed={chosen.value === entry}
                onClick={() => chooseTheme(entry)}
              >
                {entry === "auto" ? "As the system" : entry === "light" ? "Light" : "Dark"}
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
      <dt>Lost: {gapWords(reason)}</dt>
      <dd class="bad num">
        {lost === null ? "unknown how many" : formatCount(lost)} in {counted(gaps, "gap")}
      </dd>
    </>
  );
}

const LEGS = [
  { key: "device", name: "Device to gateway", note: "by the devices’ own clocks; broker included" },
  { key: "gateway", name: "Gateway to this page", note: "" },
  { key: "screen", name: "Page to screen", note: "" },
  { key: "total", name: "Device to this page", note: "both of the first two, measured as one" },
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
                <span class="soft">nothing to measure</span>
              ) : (
                <>
                  {formatSpan(median)} <span class="soft">95 % under {formatSpan(high ?? median)}</span>
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
      <span class="soft">not told</span>
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
          <dt>Name</dt>
          <dd>{who.name}</dd>
          <dt>Until</dt>
          <dd class="num">{who.expires === null ? "no end" : <Until time={who.expires} />}</dd>
          <dt>May read</dt>
          <dd>{grants(who.subscribe)}</dd>
          <dt>May publish to</dt>
          <dd>{grants(who.publish)}</dd>
          {who.node && (
            <>
              <dt>Answered by the node</dt>
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
      {who === null && <p class="soft">This gateway doesn’t say who it takes you for.</p>}
      {who?.tokens === false ? (
        <p class="soft">This gateway takes no tokens: whoever reaches it may do all of this.</p>
      ) : token.value === null ? (
        refusal.value === null && <SignIn />
      ) : (
        <p class="signed">
          Signed in with a token.{" "}
          <button type="button" onClick={signOut}>
            Sign out
          </button>
        </p>
      )}
    </>
  );
}

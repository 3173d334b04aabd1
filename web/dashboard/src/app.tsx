/** The frame around every view: where you are, whether it is live, and the way to the rest. */

import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect } from "preact/hooks";
import { firing } from "./alerts.ts";
import { titleWith } from "./core/alerts.ts";
import { formatRate, formatSpan } from "./core/format.ts";
import { t } from "./core/words.ts";
import { mayPublish } from "./identity.ts";
import { FiringAlerts } from "./parts/alerts.tsx";
import { Banner, SignInCard } from "./parts/bits.tsx";
import { ConnectionIcon, DevicesIcon, PublishIcon, ThemeIcon, TopicsIcon, ViewsIcon } from "./parts/icons.tsx";
import { useTicker } from "./parts/ticker.ts";
import { route, to, type View } from "./router.ts";
import { denied, gatewayNow, isLive, link, refusal, roundTrip, token, totals, upstream } from "./session.ts";
import { chooseTheme, theme } from "./theme.ts";
import { Connection } from "./views/connection.tsx";
import { DeviceView } from "./views/device.tsx";
import { Devices } from "./views/devices.tsx";
import { Flashing } from "./views/flashing.tsx";
import { Publish } from "./views/publish.tsx";
import { Topics } from "./views/topics.tsx";

/** Charts are a third of the code: they are fetched when they are wanted, or when there is nothing else to do. */
const charts = signal<(typeof import("./views/live/live.tsx") & typeof import("./views/saved/saved.tsx")) | null>(null);

export async function loadCharts(): Promise<void> {
  const [live, saved] = await Promise.all([import("./views/live/live.tsx"), import("./views/saved/saved.tsx")]);
  charts.value = { ...live, ...saved };
}

function Live({ filter, embed }: { filter: string; embed: boolean }) {
  const View = useCharts()?.LiveView;
  return View ? <View filter={filter} embed={embed} /> : null;
}

function Quantity({ name }: { name: string }) {
  const View = useCharts()?.QuantityView;
  return View ? <View name={name} /> : null;
}

function Saved() {
  const View = useCharts()?.SavedViews;
  return View ? <View /> : null;
}

function useCharts() {
  const loaded = charts.value;
  useEffect(() => {
    if (!loaded) loadCharts().catch(() => undefined);
  }, [loaded]);
  return loaded;
}

const TITLES: Record<View, string> = {
  devices: t("Devices"),
  topics: t("Topics"),
  device: "",
  live: "",
  quantity: "",
  saved: t("Views"),
  flash: t("Flash a board"),
  publish: t("Publish"),
  connection: t("Connection"),
};

export function App() {
  const { view, filter, params } = route.value;
  const embed = params.has("embed") && view === "live";
  const firingCount = firing.value.length;
  useEffect(() => {
    document.title = titleWith(firingCount, `${filter || TITLES[view]} · gateway`);
  }, [view, filter, firingCount]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement | null;
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
      if (target?.closest("input, textarea, select")) return;
      const search = document.querySelector<HTMLInputElement>("input[data-search], input.filter");
      if (!search) return;
      event.preventDefault();
      search.focus();
      search.select();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  // What was refused to one view says nothing of the next.
  useLayoutEffect(() => {
    denied.value = null;
  }, [view, filter]);
  // Who may publish but not read has nothing to sign in for there; the connection view is where one sees who one is.
  const isRefused = refusal.value !== null && (view !== "publish" || mayPublish() === false);
  // Another token is another visitor: everything that was opened as the last one goes.
  const visitor = token.value ?? "";
  if (embed) return <Live key={visitor} filter={filter} embed />;
  return (
    <div class="frame">
      <button
        type="button"
        class="skip"
        onClick={() => {
          document.querySelector<HTMLElement>("main")?.focus();
        }}
      >
        {t("Skip to content")}
      </button>
      <Header view={view} />
      <main key={visitor} tabIndex={-1} class={`view-${view}`}>
        <BannerTicker />
        <FiringAlerts />
        {isRefused && <SignInCard />}
        {!isRefused && view === "devices" && <Devices />}
        {!isRefused && view === "device" && <DeviceView key={filter} id={filter} />}
        {!isRefused && view === "topics" && <Topics />}
        {!isRefused && view === "live" && <Live filter={filter} embed={false} />}
        {!isRefused && view === "quantity" && <Quantity key={filter} name={filter} />}
        {!isRefused && view === "saved" && <Saved />}
        {view === "flash" && <Flashing />}
        {!isRefused && view === "publish" && <Publish />}
        {view === "connection" && <Connection />}
      </main>
    </div>
  );
}

function BannerTicker() {
  useTicker(1);
  return <Banner />;
}

function Header({ view }: { view: View }) {
  const item = (target: View, href: string, label: string, icon: preact.JSX.Element) => (
    <a
      href={href}
      aria-current={
        view === target ||
        (target === "topics" && view === "live") ||
        (target === "devices" && (view === "device" || view === "quantity" || view === "flash"))
          ? "page"
          : undefined
      }
    >
      {icon}
      <span>{label}</span>
    </a>
  );
  return (
    <header class="top">
      <a class="mark" href={to.devices()} aria-label={t("gateway, to the devices")}>
        <svg width="22" height="22" viewBox="0 0 32 32" aria-hidden="true">
          <path d="M3 19h7l3.5-11 5 16 3.5-9h7" />
        </svg>
        <span>gateway</span>
      </a>
      <nav aria-label={t("Views")}>
        {item("devices", to.devices(), t("Devices"), <DevicesIcon />)}
        {item("topics", to.topics(), t("Topics"), <TopicsIcon />)}
        {item("saved", to.saved(), t("Views"), <ViewsIcon />)}
        {mayPublish() !== false && item("publish", to.publish(), t("Publish"), <PublishIcon />)}
        {item("connection", to.connection(), t("Connection"), <ConnectionIcon />)}
      </nav>
      <Pulse />
      <button
        type="button"
        class="quiet square theme"
        aria-label={theme.value === "dark" ? t("Use the light theme") : t("Use the dark theme")}
        onClick={() => chooseTheme(theme.value === "dark" ? "light" : "dark")}
      >
        <ThemeIcon />
      </button>
    </header>
  );
}

/** One glance: is this live? Rate and round trip keep their widths. */
function Pulse() {
  useTicker(1);
  const state = link.value.state;
  const broker = upstream.value;
  const refused = refusal.value !== null;
  const live = isLive.value && !refused;
  const word = refused
    ? token.value === null
      ? t("Signed out")
      : t("No access")
    : state === "open"
      ? broker?.connected === false
        ? broker.lostAt === null
          ? t("No broker yet")
          : t("Broker away")
        : t("Live")
      : state === "connecting"
        ? t("Connecting")
        : state === "paused"
          ? t("Paused")
          : t("Cut off");
  return (
    <a class={`pulse ${live ? "on" : refused || state === "connecting" ? "wait" : "off"}`} href={to.connection()}>
      <span class="dot" aria-hidden="true" />
      <span class="word">{word}</span>
      <span class="num rate">{live ? formatRate(totals.rate.read(gatewayNow())) : ""}</span>
      <span class="num trip">{live && roundTrip.value !== null ? formatSpan(roundTrip.value) : ""}</span>
    </a>
  );
}

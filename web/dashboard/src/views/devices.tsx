/**
 * Overview: is everything well, and if not, what isn't?
 *
 * It is long because order, groups, search and the table share one list, which is drawn in parts.
 */

import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import {
  type Device,
  GROUP_KEYS,
  type GroupKey,
  type Listed,
  listDevices,
  SORT_KEYS,
  type SortKey,
  STATUSES,
  type Status,
  signalBars,
} from "../core/devices.ts";
import { counted, formatCount, formatReading, formatSpan } from "../core/format.ts";
import { trendWindow, windowWords } from "../core/trends.ts";
import { type Field, fieldLabel } from "../core/values.ts";
import { t } from "../core/words.ts";
import { arrived, FILTERS, fleet, holdFleetFeed, settled, wantHistory, wantLive } from "../fleet.ts";
import { identity, mayPublish } from "../identity.ts";
import { Age, Empty, Explain, Sparkline } from "../parts/bits.tsx";
import { BatteryIcon, SearchIcon, SignalIcon, StatusIcon } from "../parts/icons.tsx";
import { Tile } from "../parts/picture.tsx";
import { useTicker } from "../parts/ticker.ts";
import { Rows, rowStyle, useVisibleRows, useWide } from "../parts/virtual.tsx";
import { route, setParams, to } from "../router.ts";
import { link, refusal, viewNow } from "../session.ts";
import { AnyTopics } from "./any.tsx";

const LABEL: Record<Status, string> = {
  online: t("Online"),
  sleeping: t("Sleeping"),
  stale: t("Stale"),
  offline: t("Offline"),
  unknown: t("Unknown"),
};

const MEANING: Record<Status, string> = {
  online: t("reports as often as it usually does"),
  sleeping: t("said that it sleeps, and isn’t overdue"),
  stale: t("silent for more than three of its usual intervals"),
  offline: t("said goodbye, or the broker lost it"),
  unknown: t("known by name, but nothing says whether it is there"),
};

const SORT_LABEL: Record<SortKey, string> = {
  name: t("Device"),
  status: t("Status"),
  battery: t("Battery"),
  signal: t("Signal"),
  seen: t("Last seen"),
};

export function Devices() {
  useTicker(2);
  // Reading it is what draws this again.
  arrived.value;
  const known = identity.value !== undefined;
  useLayoutEffect(() => (known ? holdFleetFeed() : undefined), [known]);
  const params = route.value.params;
  const text = params.get("q") ?? "";
  const asked = params.get("status");
  const status = STATUSES.find((entry) => entry === asked) ?? null;
  const sort = SORT_KEYS.find((entry) => entry === params.get("sort")) ?? "name";
  const descending = params.get("order") === "desc";
  const trend = params.get("trend");
  fleet.setTrendField(trend);
  const group = GROUP_KEYS.find((entry) => entry === params.get("group")) ?? null;

  const now = viewNow();
  const { rows, counts } = listDevices(fleet, { text, status, sort, descending, group }, now);
  const total = fleet.devices.size;

  if (total === 0) {
    if (!settled.value) return <Waiting />;
    return <NoDevices />;
  }
  return (
    <>
      <header class="view-head">
        <h1>{t("Devices")}</h1>
        <div class="tools">
          <label class="search">
            <SearchIcon />
            <span class="sr">{t("Search devices")}</span>
            <input
              type="search"
              placeholder={t("Search")}
              data-search
              value={text}
              onInput={(event) => setParams({ q: event.currentTarget.value })}
            />
          </label>
          <GroupSelect value={group} />
          {mayPublish() !== false && (
            <a class="flash-link" href={to.flash()}>
              {t("Flash a board")}
            </a>
          )}
          <TrendSelect value={trend} />
        </div>
      </header>
      <Together />
      <StatusFilter counts={counts} chosen={status} />
      {rows.length === 0 ? (
        <Empty title={t("No device matches")}>
          <p>
            {counted(total, "device is", "devices are")} {t("here; none of them fits this search.")}
          </p>
          <button type="button" onClick={() => setParams({ q: null, status: null })}>
            {t("Show all devices")}
          </button>
        </Empty>
      ) : (
        <DeviceTable rows={rows} now={now} sort={sort} descending={descending} group={group} />
      )}
    </>
  );
}

/** Quantities that are offered as one chart of all devices. */
const OFFERED = 6;

/** What several devices measure, each as one chart of all of them. */
function Together() {
  const shared = [...fleet.quantityCounts()].filter(([, count]) => count > 1).slice(0, OFFERED);
  if (shared.length === 0) return null;
  return (
    <nav class="together" aria-label={t("One chart of all devices")}>
      <span class="soft">{t("In one chart")}</span>
      {shared.map(([field, count]) => (
        <a key={field} href={to.quantity(field)}>
          {fieldLabel(field)} <span class="soft num">{formatCount(count)}</span>
        </a>
      ))}
    </nav>
  );
}

function Waiting() {
  // A list of nothing for a moment is calmer than a spinner that flashes by; after a second something is said.
  return (
    <>
      <header class="view-head">
        <h1>{t("Devices")}</h1>
      </header>
      <p class="late soft" role="status" hidden={refusal.value !== null}>
        {link.value.state === "open" ? t("Waiting for the first values…") : t("Connecting to the gateway…")}
      </p>
    </>
  );
}

function NoDevices() {
  return (
    <>
      <header class="view-head">
        <h1>{t("Devices")}</h1>
      </header>
      <div class="no-devices">
        <Empty title={t("No sensors report here yet")}>
          <p>
            {t("A sensor shows up by itself as soon as it publishes to")} <code>sensors/&lt;id&gt;/state</code>
            {t(", with its name and units in")} <code>sensors/&lt;id&gt;/meta</code>
            {t(". Anything else on this broker is below, and under")} <a href={to.topics()}>{t("Topics")}</a>.
          </p>
          <p>
            {t("A bare ESP32 becomes one from this page:")} <a href={to.flash()}>{t("Flash a board")}</a>.
          </p>
          <Explain filter={FILTERS[2] ?? ""} />
        </Empty>
        <AnyTopics />
      </div>
    </>
  );
}

function StatusFilter({ counts, chosen }: { counts: Record<Status, number>; chosen: Status | null }) {
  const all = STATUSES.reduce((sum, status) => sum + counts[status], 0);
  return (
    <fieldset class="statuses">
      <legend class="sr">{t("Show devices by status")}</legend>
      <button type="button" aria-pressed={chosen === null} onClick={() => setParams({ status: null })}>
        {t("All")} <b>{formatCount(all)}</b>
      </button>
      {STATUSES.map((status) => (
        <button
          key={status}
          type="button"
          class={counts[status] === 0 ? "zero" : ""}
          aria-pressed={chosen === status}
          title={`${LABEL[status]}: ${MEANING[status]}`}
          onClick={() => setParams({ status: chosen === status ? null : status })}
        >
          <StatusIcon status={status} />
          {LABEL[status]} <b>{formatCount(counts[status])}</b>
        </button>
      ))}
    </fieldset>
  );
}

/** Nothing to choose where no device says where or what it is. */
function GroupSelect({ value }: { value: GroupKey | null }) {
  const devices = [...fleet.devices.values()];
  const has = (key: GroupKey) => devices.some((device) => device[key] !== "" && device[key] !== "sensor");
  if (value === null && !GROUP_KEYS.some(has)) return null;
  return (
    <label class="select">
      <span>{t("Group")}</span>
      <select value={value ?? ""} onChange={(event) => setParams({ group: event.currentTarget.value || null })}>
        <option value="">{t("none")}</option>
        <option value="area">{t("by area")}</option>
        <option value="kind">{t("by kind")}</option>
      </select>
    </label>
  );
}

function TrendSelect({ value }: { value: Field | null }) {
  const fields = [...fleet.fieldCounts().keys()].slice(0, 40);
  return (
    <label class="select">
      <span>{t("Trend")}</span>
      <select value={value ?? ""} onChange={(event) => setParams({ trend: event.currentTarget.value || null })}>
        <option value="">{t("first reading")}</option>
        {fields.map((field) => (
          <option key={field} value={field}>
            {fieldLabel(field)}
          </option>
        ))}
      </select>
    </label>
  );
}

interface TableProps {
  rows: Listed[];
  now: number;
  sort: SortKey;
  descending: boolean;
  group: GroupKey | null;
}

function DeviceTable({ rows, now, sort, descending, group }: TableProps) {
  const wide = useWide(1120);
  const huge = useWide(2400);
  // as many readings as the column has room for, and no half ones
  const [hasRoomFor3, hasRoomFor4] = [useWide(1235), useWide(1410)];
  const isPhone = !useWide(700);
  const most = huge ? 8 : isPhone ? 2 : !wide || hasRoomFor4 ? 4 : hasRoomFor3 ? 3 : 2;
  const rowHeight = wide ? 60 : 124;
  const list = useRef<HTMLDivElement>(null);
  const range = useVisibleRows(list, rows.length, rowHeight);
  const visible = rows.slice(range[0], range[1]);
  const wanted = visible
    .filter(({ device }) => device.history === "none" && fleet.trendOf(device) !== null)
    .map(({ device }) => device.id);
  const key = wanted.join(" ");
  // asked again only when other devices want their past
  useEffect(() => wantHistory(visible.map(({ device }) => device)), [key]);
  useEffect(() => wantLive(visible.map(({ device }) => device)));
  const span = trendWindow(
    visible.map(({ device }) => drawnTrend(device)),
    now,
  );
  const columns = useMemo(() => (wide ? 5 : 0), [wide]);

  const order = (by: SortKey) =>
    setParams({ sort: by === "name" ? null : by, order: sort === by && !descending ? "desc" : null });
  const heading = (by: SortKey) => (
    <span
      role="columnheader"
      aria-sort={sort === by ? (descending ? "descending" : "ascending") : "none"}
      class={`h-${by}`}
    >
      <button type="button" onClick={() => order(by)}>
        {SORT_LABEL[by]}
        <span class="arrow" aria-hidden="true">
          {sort === by ? (descending ? "↓" : "↑") : ""}
        </span>
      </button>
    </span>
  );
  return (
    <>
      {!wide && (
        <label class="select narrow-sort">
          <span>{t("Sort by")}</span>
          <select value={sort} onChange={(event) => setParams({ sort: event.currentTarget.value, order: null })}>
            {SORT_KEYS.map((entry) => (
              <option key={entry} value={entry}>
                {SORT_LABEL[entry]}
              </option>
            ))}
          </select>
        </label>
      )}
      <div
        class={`devices ${wide ? "wide" : "narrow"}`}
        role="table"
        aria-label={t("Devices")}
        aria-rowcount={rows.length + 1}
        aria-colcount={columns || undefined}
      >
        <div role="rowgroup" class={wide ? "" : "sr"}>
          <div class="device head" role="row" aria-rowindex={1}>
            {heading("status")}
            {heading("name")}
            <span role="columnheader">{t("Readings")}</span>
            <span role="columnheader" class="h-trend">
              {windowWords(span)}
            </span>
            {heading("battery")}
            {heading("signal")}
            {heading("seen")}
          </div>
        </div>
        <Rows list={list} count={rows.length} rowHeight={rowHeight} range={range} role="rowgroup">
          {(index) => {
            const row = rows[index];
            return (
              row && (
                <DeviceRow
                  key={row.device.id}
                  listed={row}
                  index={index}
                  rowHeight={rowHeight}
                  now={now}
                  span={span}
                  wide={wide}
                  huge={huge}
                  most={most}
                  group={group !== null && row.device[group] !== rows[index - 1]?.device[group] ? group : null}
                />
              )
            );
          }}
        </Rows>
      </div>
    </>
  );
}

interface RowProps {
  listed: Listed;
  index: number;
  rowHeight: number;
  now: number;
  /** What the sparkline shows, in milliseconds. */
  span: number;
  wide: boolean;
  huge: boolean;
  most: number;
  /** The first of its group: it says of which. */
  group: GroupKey | null;
}

/** A trend is drawn when its past was asked for: a line that starts where the page opened would look like news. */
function drawnTrend(device: Device): Device["trend"] {
  return device.history === "full" || device.history === "failed" ? device.trend : null;
}

function DeviceRow({ listed, index, rowHeight, now, span, wide, huge, most, group }: RowProps) {
  const { device, status } = listed;
  const field = fleet.trendOf(device);
  const readings = device.shown();
  // a picture takes the place of a reading
  const room = device.picture === null ? most : most - 1;
  const name = (
    <span role="cell" class="name">
      {group !== null && <span class="group">{device[group] || t("No {group}", { group })}</span>}
      <a href={addressOf(device)} title={device.title}>
        {device.title}
      </a>
      <span class="id" title={describe(device)}>
        {describe(device)}
      </span>
    </span>
  );
  const battery = device.battery;
  const signal = device.signal;
  return (
    <div class={`device ${status}`} role="row" aria-rowindex={index + 2} style={rowStyle(index, rowHeight)}>
      <span role="cell" class="status" title={MEANING[status]}>
        <StatusIcon status={status} />
        <span class="word">{LABEL[status]}</span>
      </span>
      {name}
      <span role="cell" class="readings">
        {device.lastProblem && (
          <span class="problem">
            {t("unreadable:")} {device.lastProblem}
          </span>
        )}
        {device.picture !== null && (
          <Tile
            topic={device.picture}
            label={t("Newest picture of {title}", { title: device.title })}
            href={addressOf(device)}
          />
        )}
        {!device.lastProblem && readings.length === 0 && device.picture === null && (
          <span class="none">{t("no readings yet")}</span>
        )}
        {!device.lastProblem &&
          readings
            .slice(0, room)
            .map(([name_, value]) => <ReadingCell key={name_} device={device} field={name_} value={value} />)}
        {!device.lastProblem && readings.length > room && (
          <a
            class="more"
            href={addressOf(device)}
            aria-label={t("{value} of {title}", {
              value: counted(readings.length - room, "more reading"),
              title: device.title,
            })}
            title={readings
              .slice(room)
              .map(([field_]) => device.label(field_))
              .join(", ")}
          >
            +{readings.length - room}
          </a>
        )}
      </span>
      <span role="cell" class="trend">
        <Sparkline
          series={drawnTrend(device)?.series ?? null}
          from={now - span}
          to={now}
          width={huge ? 720 : wide ? 168 : 112}
          height={wide ? 36 : 32}
          label={trendLabel(device, field)}
        />
      </span>
      <span role="cell" class="battery">
        {battery === null ? (
          wide && (
            <span class="none" title={t("reports no battery")}>
              –
            </span>
          )
        ) : (
          <>
            <BatteryIcon percent={battery} />
            <span class="num">{Math.round(battery)} %</span>
          </>
        )}
      </span>
      <span role="cell" class="signal">
        {signal === null ? (
          wide && (
            <span class="none" title={t("reports no signal strength")}>
              –
            </span>
          )
        ) : (
          <>
            <SignalIcon bars={signalBars(signal)} />
            <span class="num">{Math.round(signal)} dBm</span>
          </>
        )}
      </span>
      <span role="cell" class="seen" title={rhythmText(device)}>
        <Age time={device.lastTime} now={now} inColumn={wide} />
      </span>
    </div>
  );
}

/** Our own sensors have all that they say in one topic; others are made of many. */
function addressOf(device: Device): string {
  return device.places === null ? to.live(`sensors/${device.id}/state`) : to.device(device.id);
}

function describe(device: Device): string {
  const id = device.name === null || device.name === device.id || device.places !== null ? null : device.id;
  const area = route.value.params.get("group") === "area" ? "" : device.area;
  const parts = [id, area, device.model, device.simulated ? "simulated" : null];
  return parts.filter((part) => part !== null && part !== "").join(" · ");
}

function rhythmText(device: Device): string {
  const interval = device.rhythm.interval;
  if (interval === null) return t("How often it reports isn’t known yet");
  return device.rhythm.learnt
    ? t("Reports every {interval} (seen)", { interval: formatSpan(interval) })
    : t("Reports every {interval} (announced)", { interval: formatSpan(interval) });
}

function trendLabel(device: Device, field: Field | null): string {
  if (field === null) return t("no trend");
  const reading = device.readings.get(field);
  const trend = t("Trend of {field}", { field: device.label(field) });
  if (reading === undefined) return trend;
  return `${trend}, ${t("now")} ${formatReading(reading, fleet.decimals.get(field) ?? 0)} ${device.unit(field)}`;
}

interface ReadingProps {
  device: Device;
  field: Field;
  value: number;
}

function ReadingCell({ device, field, value }: ReadingProps) {
  const meta = device.fields.get(field);
  const outside = (meta?.min !== undefined && value < meta.min) || (meta?.max !== undefined && value > meta.max);
  return (
    <span
      class={`reading${outside ? " outside" : ""}`}
      title={`${device.label(field)}${outside ? t(": outside of what this sensor can measure") : ""}`}
    >
      <span class="value">
        {formatReading(value, fleet.decimals.get(field) ?? 0)}
        <span class="unit">{device.unit(field)}</span>
      </span>
      <span class="label">{device.label(field)}</span>
    </span>
  );
}

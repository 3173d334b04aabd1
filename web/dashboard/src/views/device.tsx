/** One device: what it says, what it can be told, and the topics that it is made of. */

import { useEffect, useId, useRef, useState } from "preact/hooks";
import * as api from "../api.ts";
import { type AnnouncedDevice, type AnnouncedField, filterOf } from "../core/announced.ts";
import { boundsOf, type Command, isOn, payloadOf } from "../core/commands.ts";
import { STATUSES } from "../core/devices.ts";
import { formatNumber } from "../core/format.ts";
import { boardBase } from "../core/health.ts";
import { oneLine } from "../core/values.ts";
import { t } from "../core/words.ts";
import { mayPublish } from "../identity.ts";
import { ClearDialog, TopicActs } from "../parts/acts.tsx";
import { Age, Empty } from "../parts/bits.tsx";
import { StatusIcon } from "../parts/icons.tsx";
import { Tile } from "../parts/picture.tsx";
import { useTicker } from "../parts/ticker.ts";
import { to } from "../router.ts";
import { openFeed, token, viewNow } from "../session.ts";
import { Health } from "./health.tsx";

/** Topics of one device that are listened to; a subscriber may have a hundred filters. */
const LISTENED = 96;
const SOON_MS = 250;
/** Availability is no value of a topic that is listened to, and silence is none at all. */
const AGAIN_MS = 5_000;

const STATUS_WORDS: Record<string, string> = {
  online: t("Online"),
  sleeping: t("Sleeping"),
  offline: t("Offline"),
  unknown: t("Unknown"),
};

export function DeviceView({ id }: { id: string }) {
  useTicker(1);
  const { device, problem, isGone } = useDevice(id);
  if (!device) {
    return (
      <>
        <header class="view-head">
          <h1>{id}</h1>
        </header>
        {problem === null ? (
          <p class="late soft">{t("Asking the gateway…")}</p>
        ) : (
          <Empty title={t("No such device")}>
            <p>{problem}</p>
            <p>
              <a href={to.devices()}>{t("All devices")}</a>
            </p>
          </Empty>
        )}
      </>
    );
  }
  const status = STATUSES.find((each) => each === device.availability) ?? "unknown";
  const values = new Map(device.values.map(({ id: field, value }) => [field, value]));
  const pictures = device.fields.filter(({ kind }) => kind === "image").slice(0, 4);
  const others = device.fields.filter((field) => !pictures.includes(field));
  // what it says of itself on a topic of its own is looked at now and then, and would bury what it measures
  const measuring = new Set(others.filter(({ diagnostic }) => !diagnostic).map(({ topic }) => topic));
  const aside = others.filter(({ diagnostic, topic }) => diagnostic && measuring.size > 0 && !measuring.has(topic));
  const itemOf = (field: AnnouncedField) => (
    <li key={field.id} class="item">
      <a href={to.live(field.topic, field.path ? `?field=${encodeURIComponent(field.path)}` : "")}>{field.name}</a>
      <span class="value num" title={String(values.get(field.id) ?? "")}>
        {valueText(field, values.get(field.id))}
      </span>
    </li>
  );
  const filter = filterOf(device.fields.map(({ topic }) => topic));
  const base = boardBase(device.announcements ?? []);
  const about = [
    device.manufacturer,
    device.model,
    device.area,
    device.version && t("version {version}", { version: device.version }),
  ];
  return (
    <div class="device-view">
      <header class="view-head">
        <h1>{device.name}</h1>
      </header>
      <p class="about">
        <span class="status">
          <StatusIcon status={status} />
          {isGone ? t("Gone") : STATUS_WORDS[status]}
        </span>
        {about.filter(Boolean).map((text) => (
          <span key={text}>{text}</span>
        ))}
        <span>
          {device.seen === null ? t("never heard") : `${t("heard")} `}
          {device.seen !== null && <Age time={device.seen} now={viewNow()} inSentence />}
        </span>
        {filter !== null && <a href={to.live(filter)}>{t("Show live")}</a>}
      </p>
      {isGone && (
        <p class="warn" role="status">
          {t("Nothing announces it any more: this is how it was.")}
        </p>
      )}
      {pictures.map((field) => (
        <Tile key={field.id} topic={field.topic} label={t("Newest picture, {name}", { name: field.name })} large />
      ))}
      <div class="sections">
        {device.fields.length > pictures.length && (
          <section aria-labelledby="values-title">
            <h2 id="values-title">{t("Values")}</h2>
            <ul>{others.filter((field) => !aside.includes(field)).map(itemOf)}</ul>
            {aside.length > 0 && (
              <details>
                <summary>{t("About the device itself")}</summary>
                <ul>{aside.map(itemOf)}</ul>
              </details>
            )}
          </section>
        )}
        {device.commands.length > 0 && !isGone && (
          <section aria-labelledby="controls-title">
            <h2 id="controls-title">{t("Controls")}</h2>
            <ul>
              {device.commands.map((command) => (
                <Control key={command.id} command={command} value={values.get(command.field ?? "")} />
              ))}
            </ul>
          </section>
        )}
        {base !== null && !isGone && <Health key={base} base={base} />}
        <Topics device={device} />
      </div>
    </div>
  );
}

/** The device as the gateway knows it, asked again when one of its values comes. */
function useDevice(id: string) {
  const [device, setDevice] = useState<AnnouncedDevice | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [isGone, setGone] = useState(false);
  const soon = useRef(0);
  const ending = useRef(new AbortController());
  const look = () => {
    clearTimeout(soon.current);
    const { signal } = ending.current;
    api.device(id, signal).then(
      (told) => {
        setDevice(told);
        setGone(false);
      },
      (error: unknown) => {
        if (signal.aborted || !(error instanceof api.ApiError)) return;
        setProblem(error.message);
        setGone(error.status === 404);
      },
    );
  };
  useEffect(() => {
    ending.current = new AbortController();
    look();
    const again = setInterval(look, AGAIN_MS);
    return () => {
      clearInterval(again);
      clearTimeout(soon.current);
      ending.current.abort();
    };
  }, [id, token.value]);
  const topics = [...new Set(device?.fields.map(({ topic }) => topic))].slice(0, LISTENED).sort();
  useEffect(() => {
    const feed = openFeed({
      topics,
      since: "now",
      maxHz: 2,
      onMessage: () => {
        clearTimeout(soon.current);
        soon.current = window.setTimeout(look, SOON_MS);
      },
    });
    return () => feed.close();
  }, [topics.join("\n")]);
  return { device, problem, isGone };
}

function valueText({ unit }: AnnouncedField, value: unknown): string {
  if (value === null || value === undefined) return "–";
  const text = typeof value === "number" ? formatNumber(value) : oneLine(String(value), 80);
  return unit === "" || typeof value !== "number" ? text : `${text} ${unit}`;
}

/** What became of the last command: nothing is said of a device that answers by its own value. */
interface Outcome {
  text: string;
  failed: boolean;
}

function Control({ command, value }: { command: Command; value: unknown }) {
  const [outcome, setOutcome] = useState<Outcome | null>(null);
  const id = useId();
  const tell = (choice: string) => {
    const payload = payloadOf(command, choice);
    if (payload === null) {
      const bounds = boundsOf(command);
      setOutcome({
        text: bounds === "" ? t("Expected a number.") : t("Expected a number, {bounds}.", { bounds }),
        failed: true,
      });
      return;
    }
    setOutcome({ text: t("On its way…"), failed: false });
    api.publish(command.topic, payload, command.retain === true).then(
      () => setOutcome({ text: t("Sent."), failed: false }),
      (error: Error) => setOutcome({ text: error.message, failed: true }),
    );
  };
  return (
    <li class="item">
      <label id={`${id}-name`} for={id} title={command.topic}>
        {command.name}
      </label>
      {command.problem === undefined ? (
        <Choice command={command} value={value} id={id} onTell={tell} />
      ) : (
        <span class="soft">
          {t("can’t be given:")} {command.problem}
        </span>
      )}
      <span class={`told${outcome?.failed ? " failed" : ""}`} role="status">
        {outcome?.text ?? ""}
      </span>
    </li>
  );
}

interface ChoiceProps {
  command: Command;
  value: unknown;
  id: string;
  onTell: (choice: string) => void;
}

function Choice({ command, value, id, onTell }: ChoiceProps) {
  const [typed, setTyped] = useState<string | null>(null);
  const choices = Object.keys(command.payloads ?? {});
  switch (command.kind) {
    case "switch": {
      const on = isOn(command, value);
      return (
        <span id={id} class="control segments" role="group" aria-labelledby={`${id}-name`}>
          {choices.map((choice) => (
            <button
              key={choice}
              type="button"
              aria-pressed={on !== null && (choice === "on") === on}
              onClick={() => onTell(choice)}
            >
              {choice === "on" ? t("On") : choice === "off" ? t("Off") : choice}
            </button>
          ))}
        </span>
      );
    }
    case "button":
      return (
        <span class="control">
          {choices.map((choice) => (
            <button
              key={choice}
              id={id}
              type="button"
              aria-labelledby={`${id} ${id}-name`}
              onClick={() => onTell(choice)}
            >
              {choice === "press" ? t("Press") : choice}
            </button>
          ))}
        </span>
      );
    case "select":
      return (
        <span class="control">
          <select
            id={id}
            value={choices.includes(String(value)) ? String(value) : ""}
            onChange={(event) => event.currentTarget.value !== "" && onTell(event.currentTarget.value)}
          >
            {!choices.includes(String(value)) && <option value="">–</option>}
            {choices.map((choice) => (
              <option key={choice} value={choice}>
                {choice}
              </option>
            ))}
          </select>
        </span>
      );
    default: {
      const shown = typed ?? (value === null || value === undefined ? "" : String(value));
      return (
        <form
          class="control"
          onSubmit={(event) => {
            event.preventDefault();
            onTell(shown);
            setTyped(null);
          }}
        >
          <input
            id={id}
            inputMode={command.kind === "number" ? "decimal" : undefined}
            autoComplete="off"
            spellcheck={false}
            placeholder={command.kind === "number" ? boundsOf({ ...command, unit: "" }) : ""}
            title={command.kind === "number" ? boundsOf(command) : undefined}
            value={shown}
            onInput={(event) => setTyped(event.currentTarget.value)}
          />
          {command.kind === "number" && command.unit && <span class="soft">{command.unit}</span>}
          <button type="submit" disabled={typed === null}>
            {t("Set")}
          </button>
        </form>
      );
    }
  }
}

function Topics({ device }: { device: AnnouncedDevice }) {
  const [clearing, setClearing] = useState(false);
  const announcements = device.announcements ?? [];
  const topics = [...new Set(device.fields.map(({ topic }) => topic))];
  const mayClear = announcements.length > 0 && announcements.every((topic) => mayPublish(topic) !== false);
  return (
    <section aria-labelledby="made-title">
      <h2 id="made-title">{t("Topics")}</h2>
      <p class="soft">
        {t("Announced by")} {device.announced_by.join(", ")}.
      </p>
      <ul>
        {topics.slice(0, LISTENED).map((topic) => (
          <li key={topic}>
            <a href={to.live(topic)}>
              <code>{topic}</code>
            </a>
            <TopicActs topic={topic} />
          </li>
        ))}
      </ul>
      {mayClear && (
        <button type="button" class="danger" onClick={() => setClearing(true)}>
          {t("Clear its announcement…")}
        </button>
      )}
      {clearing && (
        <ClearDialog
          filters={announcements}
          also={t("The device goes until it announces itself again.")}
          onClose={() => setClearing(false)}
        />
      )}
    </section>
  );
}

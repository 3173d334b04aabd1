/**
 * From a bare board on a cable to its first reading, without leaving the page.
 *
 * It is long because each step goes on with what the ones before found out, and with the same cable.
 */
import { useEffect, useRef, useState } from "preact/hooks";
import { CableError, install, type Manifest, type Progress, readLines, type Ssid, Talk } from "../../cable.ts";
import {
  type Boards,
  type Broker,
  brokerProblem,
  commandFor,
  freshKey,
  freshSensor,
  openSlot,
  type Sensor,
  settingsOf,
  type Wishes,
} from "../../core/boards.ts";
import { t } from "../../core/words.ts";
import { CopyButton } from "../../parts/copy.tsx";
import { Key, type KeyKept, Reading, whoKeeps } from "./done.tsx";
import { Sensors } from "./sensors.tsx";

/** What the page has around it: a gateway, or nothing. */
interface Surroundings {
  /** The folder with `manifest.json` and what it names. */
  images: URL;
  /** The broker that the gateway offers to this visitor. */
  broker?: () => Promise<Broker | null>;
  /** Calls back for each reading of a sensor that the gateway relays; returns what ends that. */
  watch?: (id: string, onReading: (reading: Record<string, unknown>) => void) => () => void;
  /** Calls back with what a sensor says of itself, fields and units; returns what ends that. */
  describe?: (id: string, onMeta: (meta: Record<string, unknown>) => void) => () => void;
  /** Leaves the key of a board's updates with the gateway; whether it is kept there. */
  keepKey?: (id: string, key: string) => Promise<boolean>;
  /** Where a sensor is shown. */
  show?: (id: string) => string;
}

type Phase = "choose" | "installing" | "opening" | "network" | "joining" | "rest" | "giving" | "waiting" | "done";

const PHASES: readonly Phase[] = [
  "choose",
  "installing",
  "opening",
  "network",
  "joining",
  "rest",
  "giving",
  "waiting",
  "done",
];

const WAIT_MS = 90_000;
const LINES = 200;

const PROBLEMS: Readonly<Record<CableError["code"], string>> = {
  busy: t("The port can’t be opened: another program uses it, such as a serial monitor or an IDE. Close it."),
  silent: t("The board did not enter its bootloader. Hold its button BOOT, press and release EN, and try again."),
  unsupported: t("There is no image here for this chip."),
  download: t("The image could not be fetched."),
  write: t("Writing failed. Another cable, no hub, and try again."),
  "no-program": t(
    "The board does not answer: it has no program of ours yet, or it needs a reset. Press EN, or install.",
  ),
  network: t("The board could not join: a wrong password, a network with 5 GHz only, or too far away."),
  settings: t("The board does not take these settings:"),
  gone: t("The board went away and did not come back: plug it in again."),
};

const STEPS: Readonly<Record<Progress["step"], string>> = {
  connecting: t("Looking for the board…"),
  fetching: t("Fetching the image…"),
  erasing: t("Erasing…"),
  writing: t("Writing…"),
};

interface Kit {
  boards: Boards;
  manifest: Manifest;
}

export function Flash({ images, broker: offer, watch, describe, keepKey, show }: Surroundings) {
  const [kit, setKit] = useState<Kit | "none" | null>(null);
  const [chip, setChip] = useState("");
  const [sensors, setSensors] = useState<Sensor[]>([]);
  const [phase, setPhase] = useState<Phase>("choose");
  const [problem, setProblem] = useState<{ text: string; detail: string } | null>(null);
  const [progress, setProgress] = useState<Progress | null>(null);
  const [networks, setNetworks] = useState<Ssid[]>([]);
  const [about, setAbout] = useState("");
  const [broker, setBroker] = useState<Broker>({ url: "" });
  const [isOffered, setOffered] = useState(false);
  const [name, setName] = useState("");
  const [interval, setInterval] = useState(10);
  const [battery, setBattery] = useState(false);
  const [erase, setErase] = useState(false);
  const [id, setId] = useState("");
  const [lines, setLines] = useState<readonly string[]>([]);
  const [reading, setReading] = useState<Record<string, unknown> | null>(null);
  const [meta, setMeta] = useState<Record<string, unknown> | null>(null);
  const [kept, setKept] = useState<KeyKept | null>(null);
  const [isLate, setLate] = useState(false);
  const key = useRef<string | null>(null);
  const port = useRef<SerialPort | null>(null);
  const talk = useRef<Talk | null>(null);
  const manifestAddress = new URL("manifest.json", images);

  useEffect(() => {
    loadKit(images).then(
      (found) => {
        const first = found.manifest.builds.find(({ chipFamily }) => chipFamily in found.boards.chips)?.chipFamily;
        const start = first ?? Object.keys(found.boards.chips)[0] ?? "";
        setKit(found);
        setChip(start);
        setSensors([freshSensor(found.boards, start, "bme280" in found.boards.drivers ? "bme280" : "fake", [])]);
      },
      () => setKit("none"),
    );
    offer?.().then(
      (found) => {
        if (!found) return;
        setBroker(found);
        setOffered(true);
      },
      () => undefined,
    );
    return () => void talk.current?.close().catch(() => undefined);
  }, []);

  // The first reading: whichever comes first, what the gateway relays or what the board says of it.
  useEffect(() => {
    if (phase !== "waiting" || !port.current || kit === null || kit === "none") return;
    const ending = new AbortController();
    const arrived = (found: Record<string, unknown>) => {
      setReading(found);
      setPhase("done");
    };
    const unwatch = watch?.(id, arrived);
    const late = window.setTimeout(() => setLate(true), WAIT_MS);
    readLines(port.current, ending.signal, (line) => {
      setLines((before) => [...before, line].slice(-LINES));
      const at = line.indexOf(kit.boards.delivered);
      if (at < 0) return;
      try {
        arrived(JSON.parse(line.slice(at + kit.boards.delivered.length)));
      } catch {
        // a line that was cut: the next one, or the gateway, has it
      }
    }).catch((error: unknown) => fail(error));
    return () => {
      ending.abort();
      unwatch?.();
      clearTimeout(late);
    };
  }, [phase === "waiting"]);

  useEffect(() => (id === "" ? undefined : describe?.(id, setMeta)), [id]);

  const fail = (error: unknown, back?: Phase) => {
    const code = error instanceof CableError ? error.code : "write";
    setProblem({ text: PROBLEMS[code], detail: (error as Error).message ?? String(error) });
    if (back) setPhase(back);
  };

  const why = whyNot();
  if (why !== null || kit === "none") {
    return (
      <Frame>
        <section class="cannot">
          {why !== null ? <p>{why}</p> : <NoImages />}
          <h2>{t("In a terminal it goes like this")}</h2>
          <Command
            text={
              kit !== null && kit !== "none"
                ? commandFor({ name, interval, battery, sensors, broker }, chip, "ESP32_GENERIC-….bin")
                : "sensors-flash --firmware ESP32_GENERIC-….bin --wifi SSID --mqtt mqtt://192.168.1.10 --sensor fake"
            }
          />
          <p class="soft">{t("docs/firmware.md leads through it, from installing the tool to the first reading.")}</p>
        </section>
      </Frame>
    );
  }
  if (kit === null) {
    return (
      <Frame>
        <p class="late soft">{t("Asking the gateway…")}</p>
      </Frame>
    );
  }

  const { boards, manifest } = kit;
  const images_ = manifest.builds.map(({ chipFamily }) => chipFamily as string).filter((each) => each in boards.chips);
  const wishes: Wishes = { name, interval, battery, sensors, broker };
  const open = openSlot(boards, chip, sensors);
  const isPast = (other: Phase) => PHASES.indexOf(phase) > PHASES.indexOf(other);
  const isBusy = phase === "installing" || phase === "opening" || phase === "joining" || phase === "giving";

  const choosePort = async (): Promise<SerialPort | null> => {
    try {
      return await navigator.serial.requestPort();
    } catch {
      return null; // nothing was chosen
    }
  };
  const begin = async (isInstalled: boolean) => {
    setProblem(null);
    const chosen = port.current ?? (await choosePort());
    port.current = chosen;
    if (!chosen) return;
    await talk.current?.close().catch(() => undefined);
    talk.current = null;
    try {
      if (!isInstalled) {
        setPhase("installing");
        const found = await install(chosen, manifest, manifestAddress, erase, setProgress);
        if (found in boards.chips) setChip(found);
      }
      setPhase("opening");
      const opened = await Talk.open(chosen, boards, isInstalled);
      talk.current = opened;
      const { chip: told, name: called, firmware, version } = opened.about;
      if (told in boards.chips) setChip(told);
      setAbout(`${called}, ${told}, ${firmware} ${version}`);
      setPhase("network");
      setNetworks(await opened.networks());
    } catch (error) {
      if (error instanceof CableError && error.code === "busy") port.current = null;
      fail(error, "choose");
    }
  };
  const join = async (ssid: string, password: string) => {
    setProblem(null);
    setPhase("joining");
    try {
      await talk.current?.join(ssid, password);
      setPhase("rest");
    } catch (error) {
      fail(error, "network");
    }
  };
  const give = async () => {
    setProblem(null);
    setPhase("giving");
    try {
      if (talk.current === null) return;
      key.current ??= freshKey(); // the same one when it is tried again: the board may have taken it
      const told = await talk.current.give({ ...settingsOf(wishes), update_key: key.current });
      setId(told.id);
      setKept(await whoKeeps(told.hasOwnKey, told.id, key.current, keepKey));
      setLate(false);
      await talk.current?.close();
      talk.current = null;
      setPhase("waiting");
    } catch (error) {
      fail(error, "rest");
    }
  };
  const another = () => {
    port.current = null;
    key.current = null;
    setId("");
    setKept(null);
    setMeta(null);
    setReading(null);
    setLines([]);
    setNetworks([]);
    setName("");
    setProblem(null);
    setPhase("choose");
  };

  return (
    <Frame>
      <ol class="steps">
        <Step number={1} title={t("What is connected")} isDone={isPast("rest")} isOpen={!isPast("rest")}>
          <label class="select">
            {t("Chip")}
            <select value={chip} disabled={phase !== "choose"} onChange={(event) => setChip(event.currentTarget.value)}>
              {(images_.length > 0 ? images_ : Object.keys(boards.chips)).map((each) => (
                <option key={each}>{each}</option>
              ))}
            </select>
          </label>
          <p class="soft">{t("Installing finds out which chip it is; until then this one is drawn.")}</p>
          <Sensors boards={boards} chip={chip} sensors={sensors} onChange={setSensors} />
        </Step>
        <Step number={2} title={t("Install")} isDone={isPast("opening")} isOpen={!isPast("opening")}>
          <p>{t("Connect the board with a USB cable that carries data. The browser asks which port it is.")}</p>
          <div class="row">
            <button type="button" class="primary" disabled={isBusy} onClick={() => void begin(false)}>
              {t("Install")}
            </button>
            <button type="button" disabled={isBusy} onClick={() => void begin(true)}>
              {t("It is installed: only set it up")}
            </button>
            <label class="check">
              <input type="checkbox" checked={erase} onChange={(event) => setErase(event.currentTarget.checked)} />
              {t("Erase all that is on it first")}
            </label>
          </div>
          {phase === "installing" && progress && (
            <div class="progress" role="status">
              <progress {...(progress.share === null ? {} : { value: progress.share })} max="1" />
              <span>
                {STEPS[progress.step]}
                {progress.share !== null && ` ${Math.round(progress.share * 100)} %`}
                {progress.chip !== null && ` · ${progress.chip}`}
              </span>
            </div>
          )}
          {phase === "opening" && <p role="status">{t("The board starts…")}</p>}
          <Problem shown={phase === "choose"} problem={problem} />
        </Step>
        <Step
          number={3}
          title={t("Wi-Fi")}
          isDone={isPast("joining")}
          isOpen={phase === "network" || phase === "joining"}
          note={about}
        >
          <Network networks={networks} isBusy={phase === "joining"} onJoin={(ssid, word) => void join(ssid, word)} />
          <Problem shown={phase === "network"} problem={problem} />
        </Step>
        <Step
          number={4}
          title={t("Broker and name")}
          isDone={isPast("giving")}
          isOpen={phase === "rest" || phase === "giving"}
        >
          <Rest
            broker={broker}
            isOffered={isOffered}
            name={name}
            interval={interval}
            battery={battery}
            isBusy={phase === "giving"}
            isOpenPin={open !== null}
            onBroker={setBroker}
            onName={setName}
            onInterval={setInterval}
            onBattery={setBattery}
            onGive={() => void give()}
          />
          <Problem shown={phase === "rest"} problem={problem} />
        </Step>
        <Step number={5} title={t("First reading")} isDone={phase === "done"} isOpen={isPast("giving")}>
          {phase === "waiting" && (
            <p role="status">
              {isLate
                ? t("Nothing came in 90 s. What the board says is below; docs/firmware.md has a table of causes.")
                : t("The board restarts and measures…")}
            </p>
          )}
          <Problem shown={phase === "waiting"} problem={problem} />
          {reading !== null && <Reading reading={reading} boards={boards} meta={meta} />}
          {kept !== null && <Key kept={kept} id={id} />}
          {phase === "done" && (
            <p class="row">
              {show && <a href={show(id)}>{t("Show {name}", { name: name.trim() || id })}</a>}
              <button type="button" onClick={another}>
                {t("Another board")}
              </button>
            </p>
          )}
          {lines.length > 0 && (
            <details open={isLate}>
              <summary>{t("What the board says")}</summary>
              <pre>{lines.join("\n")}</pre>
            </details>
          )}
        </Step>
      </ol>
      <details class="terminal">
        <summary>{t("The same in a terminal")}</summary>
        <Command text={commandFor(wishes, chip, "ESP32_GENERIC-….bin")} />
      </details>
    </Frame>
  );
}

async function loadKit(images: URL): Promise<Kit> {
  const load = async (name: string) => {
    const answer = await fetch(new URL(name, images), { cache: "no-cache" });
    if (!answer.ok) throw new Error(answer.statusText);
    return answer.json();
  };
  const [boards, manifest] = await Promise.all([load("boards.json"), load("manifest.json")]);
  return { boards: boards as Boards, manifest: manifest as Manifest };
}

/** Why this browser can't do it here; null when it can. */
function whyNot(): string | null {
  if (!window.isSecureContext) {
    return t(
      "Browsers let a page use a serial port only over https:// or on this computer itself (http://localhost). This page came another way.",
    );
  }
  if (!("serial" in navigator)) {
    return t("This browser has no Web Serial. Chrome, Edge and Opera on a computer have it.");
  }
  return null;
}

function Frame({ children }: { children: preact.ComponentChildren }) {
  return (
    <div class="flash-view">
      <header class="view-head">
        <h1>{t("Flash a board")}</h1>
      </header>
      {children}
    </div>
  );
}

function NoImages() {
  return (
    <>
      <p>
        {t("There are no images here yet. Whoever runs the gateway makes one for each chip, and says where they are:")}
      </p>
      <Command text="sensors-flash image --chip esp32c3 -o images/esp32c3.bin" />
      <Command text="GATEWAY_FLASH_FOLDER=images gateway serve" />
    </>
  );
}

function Command({ text }: { text: string }) {
  return (
    <div class="command">
      <code>{text}</code>
      <CopyButton text={text} label={t("command")} />
    </div>
  );
}

interface StepProps {
  number: number;
  title: string;
  isDone: boolean;
  isOpen: boolean;
  note?: string;
  children: preact.ComponentChildren;
}

function Step({ number, title, isDone, isOpen, note, children }: StepProps) {
  return (
    <li class={isDone ? "done" : isOpen ? "open" : "later"} aria-current={isOpen && !isDone ? "step" : undefined}>
      <h2>
        <span class="count" aria-hidden="true">
          {isDone ? "✓" : number}
        </span>
        <span class="title">{title}</span>
        {note && <span class="note">{note}</span>}
      </h2>
      {(isOpen || (isDone && number === 5)) && <div class="body">{children}</div>}
    </li>
  );
}

function Problem({ shown, problem }: { shown: boolean; problem: { text: string; detail: string } | null }) {
  if (!shown || !problem) return null;
  return (
    <div class="problem" role="alert">
      <p>{problem.text}</p>
      {problem.detail && <pre>{problem.detail}</pre>}
    </div>
  );
}

interface NetworkProps {
  networks: readonly Ssid[];
  isBusy: boolean;
  onJoin: (ssid: string, password: string) => void;
}

function Network({ networks, isBusy, onJoin }: NetworkProps) {
  const [ssid, setSsid] = useState("");
  const [isHidden, setHidden] = useState(false);
  const [password, setPassword] = useState("");
  const chosen = networks.find(({ name }) => name === ssid);
  const isTyped = isHidden || networks.length === 0;
  useEffect(() => {
    if (ssid === "" && networks[0]) setSsid(networks[0].name);
  }, [networks]);
  return (
    <form
      class="fields"
      onSubmit={(event) => {
        event.preventDefault();
        onJoin(ssid, chosen && !isTyped && !chosen.secured ? "" : password);
      }}
    >
      <label for="ssid">
        <span>{t("Network")}</span>
        {isTyped ? (
          <input
            id="ssid"
            value={ssid}
            maxLength={32}
            required
            onInput={(event) => setSsid(event.currentTarget.value)}
          />
        ) : (
          <select id="ssid" value={ssid} onChange={(event) => setSsid(event.currentTarget.value)}>
            {networks.map(({ name, rssi, secured }) => (
              <option key={name} value={name}>
                {name} ({rssi} dBm{secured ? "" : `, ${t("open")}`})
              </option>
            ))}
          </select>
        )}
      </label>
      {networks.length > 0 && (
        <label class="check">
          <input type="checkbox" checked={isHidden} onChange={(event) => setHidden(event.currentTarget.checked)} />
          {t("It is not in the list")}
        </label>
      )}
      {(isTyped || chosen?.secured !== false) && (
        <label>
          <span>{t("Its password")}</span>
          <input
            type="password"
            value={password}
            autoComplete="off"
            maxLength={64}
            onInput={(event) => setPassword(event.currentTarget.value)}
          />
        </label>
      )}
      <p class="soft">{t("It goes over the cable to the board, and nowhere else.")}</p>
      <button type="submit" class="primary" disabled={isBusy || ssid === ""}>
        {isBusy ? t("Joining…") : t("Join")}
      </button>
    </form>
  );
}

interface RestProps {
  broker: Broker;
  isOffered: boolean;
  name: string;
  interval: number;
  battery: boolean;
  isBusy: boolean;
  isOpenPin: boolean;
  onBroker: (broker: Broker) => void;
  onName: (name: string) => void;
  onInterval: (interval: number) => void;
  onBattery: (battery: boolean) => void;
  onGive: () => void;
}

const BROKER_PROBLEMS: Readonly<Record<string, string>> = {
  form: t("Expected an address such as mqtt://192.168.1.10."),
  itself: t("To the board that is itself: give the address that the broker’s computer has in your network."),
};

function Rest(props: RestProps) {
  const { broker, isOffered, name, interval, battery, isBusy, isOpenPin } = props;
  const problem = brokerProblem(broker.url);
  return (
    <form
      class="fields"
      onSubmit={(event) => {
        event.preventDefault();
        props.onGive();
      }}
    >
      <label>
        <span>{t("Name, for people")}</span>
        <input
          value={name}
          maxLength={100}
          placeholder={t("Living room")}
          onInput={(event) => props.onName(event.currentTarget.value)}
        />
      </label>
      <label>
        <span>{t("Broker, as the board sees it")}</span>
        <input
          class="mono"
          value={broker.url}
          required
          spellcheck={false}
          autocapitalize="off"
          placeholder="mqtt://192.168.1.10"
          aria-invalid={problem === "form"}
          onInput={(event) => props.onBroker({ ...broker, url: event.currentTarget.value })}
        />
      </label>
      {problem !== null && problem !== "empty" && (
        <p class={problem === "itself" ? "warn" : "failed"}>{BROKER_PROBLEMS[problem]}</p>
      )}
      {isOffered && <p class="soft">{t("This is the gateway’s offer for sensors, its user and password included.")}</p>}
      <label>
        <span>{t("User at the broker")}</span>
        <input
          value={broker.username ?? ""}
          autoComplete="off"
          spellcheck={false}
          autocapitalize="off"
          onInput={(event) => props.onBroker({ ...broker, username: event.currentTarget.value })}
        />
      </label>
      <label>
        <span>{t("Password")}</span>
        <input
          type="password"
          value={broker.password ?? ""}
          autoComplete="off"
          onInput={(event) => props.onBroker({ ...broker, password: event.currentTarget.value })}
        />
      </label>
      {/^mqtts:/i.test(broker.url) && (
        <label>
          <span>{t("Certificate of the authority (PEM)")}</span>
          <textarea
            class="mono"
            rows={4}
            value={broker.ca_pem ?? ""}
            spellcheck={false}
            onInput={(event) => props.onBroker({ ...broker, ca_pem: event.currentTarget.value })}
          />
        </label>
      )}
      <label>
        <span>{t("Seconds between two readings")}</span>
        <input
          type="number"
          min="1"
          max="86400"
          value={interval}
          onInput={(event) => props.onInterval(Number(event.currentTarget.value) || 10)}
        />
      </label>
      <label class="check">
        <input type="checkbox" checked={battery} onChange={(event) => props.onBattery(event.currentTarget.checked)} />
        {t("On a battery: it sleeps in between")}
      </label>
      {isOpenPin && (
        <p class="failed">{t("A pin above is still to be chosen: this chip does not have all of them.")}</p>
      )}
      <button
        type="submit"
        class="primary"
        disabled={isBusy || isOpenPin || (problem !== null && problem !== "itself")}
      >
        {isBusy ? t("On its way…") : t("Give it to the board")}
      </button>
    </form>
  );
}

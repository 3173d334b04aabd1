/**
 * A board on a cable: its image written, its settings given, its words read.
 *
 * ESP Web Tools writes and its Improv client talks; both are used without their dialogs, which speak English only and know
 * nothing of sensors and brokers. Nothing here knows of the page.
 */
import type { Manifest } from "esp-web-tools/dist/const.js";
import type { ImprovSerial, Ssid } from "improv-wifi-serial-sdk/dist/serial.js";
import type { Boards } from "./core/boards.ts";

export type { Manifest, Ssid };

export interface Progress {
  step: "connecting" | "fetching" | "erasing" | "writing";
  /** Of what is written, 0 to 1; null where nobody knows. */
  share: number | null;
  chip: string | null;
}

/** What went wrong; `code` is one of the page's sentences, the text what the tool said. */
export class CableError extends Error {
  override name = "CableError";

  constructor(
    readonly code:
      | "busy"
      | "silent"
      | "unsupported"
      | "download"
      | "write"
      | "no-program"
      | "network"
      | "settings"
      | "gone",
    message: string,
  ) {
    super(message);
  }
}

const ERRORS: Readonly<Record<string, CableError["code"]>> = {
  failed_initialize: "silent",
  not_supported: "unsupported",
  failed_firmware_download: "download",
  write_failed: "write",
};

const BAUD = 115_200;
/** A board that was just written makes its file system ready, or waits two seconds for Ctrl-C. */
const START_MS = 20_000;
/** Joining takes up to 20 s on the board. */
const JOIN_MS = 40_000;
const AGAIN_MS = 400;
/** What native USB takes to come back after a restart. */
const BACK_MS = 15_000;

const quiet = { log: () => undefined, error: () => undefined, debug: () => undefined };

/** Writes the image for the chip that is found. Returns the chip's name. */
export async function install(
  port: SerialPort,
  manifest: Manifest,
  address: URL,
  erase: boolean,
  onProgress: (progress: Progress) => void,
): Promise<string> {
  const { flash } = await import("esp-web-tools/dist/flash.js");
  let chip: string | null = null;
  let failed: CableError | null = null;
  let isFinished = false;
  await release(port);
  await flash(
    (state) => {
      chip = state.chipFamily && state.chipFamily !== "Unknown Chip" ? state.chipFamily : chip;
      const event = state as { state: string; details?: { percentage?: number; error?: string }; message: string };
      switch (event.state) {
        case "initializing":
          return onProgress({ step: "connecting", share: null, chip });
        case "preparing":
          return onProgress({ step: "fetching", share: null, chip });
        case "erasing":
          return onProgress({ step: "erasing", share: null, chip });
        case "writing":
          return onProgress({ step: "writing", share: (event.details?.percentage ?? 0) / 100, chip });
        case "finished":
          isFinished = true;
          return;
        default:
          failed = new CableError(ERRORS[event.details?.error ?? ""] ?? "write", event.message);
      }
    },
    port,
    address.href,
    manifest,
    erase,
  );
  if (failed !== null) throw failed;
  if (!isFinished || chip === null) throw new CableError("write", "");
  return chip;
}

/** Closes a port that an earlier attempt left open. */
async function release(port: SerialPort): Promise<void> {
  try {
    await port.close();
  } catch {
    // it was closed
  }
}

async function open(port: SerialPort): Promise<void> {
  await release(port);
  try {
    await port.open({ baudRate: BAUD, bufferSize: 8192 });
  } catch (error) {
    throw new CableError("busy", (error as Error).message);
  }
}

/** Starts a board anew, as its button EN does. */
async function reset(port: SerialPort): Promise<void> {
  await port.setSignals({ dataTerminalReady: false, requestToSend: true });
  await new Promise((resolve) => setTimeout(resolve, 100));
  await port.setSignals({ dataTerminalReady: false, requestToSend: false });
}

/** A board that takes settings over its serial line. */
export class Talk {
  private constructor(
    private readonly improv: ImprovSerial,
    private readonly boards: Boards,
  ) {}

  /** @param anew the board may be at work: start it again, for then it listens. */
  static async open(port: SerialPort, boards: Boards, anew: boolean): Promise<Talk> {
    const { ImprovSerial } = await import("improv-wifi-serial-sdk/dist/serial.js");
    await open(port);
    if (anew) await reset(port);
    const improv = new ImprovSerial(port, quiet);
    try {
      await improv.initialize(START_MS);
    } catch (error) {
      throw new CableError("no-program", String((error as Error).message ?? error));
    }
    return new Talk(improv, boards);
  }

  get about(): { firmware: string; version: string; chip: string; name: string } {
    const info = this.improv.info;
    return {
      firmware: info?.firmware ?? "",
      version: info?.version ?? "",
      chip: info?.chipFamily ?? "",
      name: info?.name ?? "",
    };
  }

  /** The networks that the board hears, strongest first. */
  async networks(): Promise<Ssid[]> {
    try {
      return (await this.improv.scan(START_MS)).sort((a, b) => b.rssi - a.rssi);
    } catch {
      return [];
    }
  }

  async join(ssid: string, password: string): Promise<void> {
    try {
      await this.improv.provision(ssid, password, JOIN_MS);
    } catch (error) {
      throw new CableError("network", String(error));
    }
  }

  /**
   * Gives everything else; the board restarts.
   *
   * Returns the id that it has from now on, and whether it has a key for updates already, and keeps that one.
   */
  async give(settings: Record<string, unknown>): Promise<{ id: string; hasOwnKey: boolean }> {
    const text = new TextEncoder().encode(JSON.stringify(settings));
    const size = this.boards.piece_bytes;
    let said: string[] = [];
    for (let at = 0, number = 0; at < text.length; at += size, number++) {
      const isLast = at + size >= text.length;
      said = await this.call(this.boards.settings_command, [isLast ? 1 : 0, number, ...text.subarray(at, at + size)]);
    }
    const [verdict, ...rest] = said;
    if (verdict !== "ok") throw new CableError("settings", rest.join("\n"));
    return { id: rest[0] ?? "", hasOwnKey: rest[1] === "key kept" };
  }

  close(): Promise<void> {
    return this.improv.close();
  }

  /** A command that the Improv client does not know: it has no public way to send one. */
  private async call(command: number, data: number[]): Promise<string[]> {
    const client = this.improv as unknown as {
      _sendRPCWithResponse(command: number, data: number[], timeout?: number): Promise<string[]>;
    };
    try {
      return await client._sendRPCWithResponse(command, data, START_MS);
    } catch (error) {
      throw new CableError("settings", String(error));
    }
  }
}

/** What a board prints, line by line, until `signal` ends it; a port that goes for a moment is opened again. */
export async function readLines(port: SerialPort, signal: AbortSignal, onLine: (line: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  let rest = "";
  let goneAt: number | null = null;
  while (!signal.aborted) {
    if (!port.readable) {
      try {
        await open(port);
      } catch (error) {
        goneAt ??= Date.now();
        if (Date.now() - goneAt > BACK_MS) throw new CableError("gone", (error as Error).message);
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
        continue;
      }
    }
    goneAt = null;
    const reader = port.readable?.getReader();
    if (!reader) continue;
    const cancel = () => void reader.cancel().catch(() => undefined);
    signal.addEventListener("abort", cancel);
    try {
      while (true) {
        const { value, done } = await reader.read();
        if (done) break;
        const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
        rest = (lines.pop() ?? "").slice(-4096);
        for (const line of lines) if (line.trim() !== "") onLine(line);
      }
    } catch {
      // A board with USB of its own vanishes while it restarts.
    } finally {
      signal.removeEventListener("abort", cancel);
      reader.releaseLock();
    }
    if (!signal.aborted) await release(port);
  }
  await release(port);
}

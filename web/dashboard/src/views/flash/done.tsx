/** What stands at the end: the first reading, and who has the key of the board's updates. */
import { type Boards, unitOf } from "../../core/boards.ts";
import { formatNumber } from "../../core/format.ts";
import { t } from "../../core/words.ts";
import { CopyButton } from "../../parts/copy.tsx";

const BOOKKEEPING = new Set(["ts", "seq", "boot"]);

interface ReadingProps {
  reading: Record<string, unknown>;
  boards: Boards;
  meta: Record<string, unknown> | null;
}

export function Reading({ reading, boards, meta }: ReadingProps) {
  const fields = Object.entries(reading).filter(([field]) => !BOOKKEEPING.has(field));
  return (
    <dl class="first-reading">
      {fields.map(([field, value]) => {
        const unit = typeof value === "number" ? unitOf(boards, meta, field) : "";
        return (
          <div key={field}>
            <dt>{field.replaceAll("_", " ")}</dt>
            <dd class="num">
              {typeof value === "number" ? formatNumber(value) : String(value)}
              {unit !== "" && <span class="unit"> {unit}</span>}
            </dd>
          </div>
        );
      })}
    </dl>
  );
}

/** Who has the key that signs the board's updates: `line` is what belongs into the file of keys. */
export interface KeyKept {
  by: "board" | "gateway" | "nobody";
  line: string;
  problem: string;
}

/** Leaves the key with the gateway where that keeps it, unless the board has one of its own. */
export async function whoKeeps(
  hasOwnKey: boolean,
  id: string,
  key: string,
  keepKey: ((id: string, key: string) => Promise<boolean>) | undefined,
): Promise<KeyKept> {
  const line = `${id} ${key}`;
  if (hasOwnKey) return { by: "board", line: "", problem: "" };
  try {
    return { by: (await keepKey?.(id, key)) ? "gateway" : "nobody", line, problem: "" };
  } catch (error) {
    return { by: "nobody", line, problem: (error as Error).message };
  }
}

/** Where the key for updates is; it is shown nowhere, for whoever looks over a shoulder would have it. */
export function Key({ kept: { by, line, problem }, id }: { kept: KeyKept; id: string }) {
  const save = () => {
    const address = URL.createObjectURL(new Blob([`${line}\n`], { type: "text/plain" }));
    const link = document.createElement("a");
    link.href = address;
    link.download = `${id}.key.txt`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  };
  if (by === "board") return <p class="soft">{t("The board keeps the key for its updates that it had.")}</p>;
  if (by === "gateway") return <p class="soft">{t("The gateway keeps the key for the board’s updates.")}</p>;
  return (
    <div class="key">
      <p>
        {t(
          "Updates without a cable are signed with a key that only this board and this page have. Save it: its line belongs into the file ~/.config/sensors-flash/keys of the computer that is to update the board.",
        )}
      </p>
      {problem !== "" && <p class="failed">{t("The gateway could not keep it: {reason}", { reason: problem })}</p>}
      <p class="row">
        <button type="button" onClick={save}>
          {t("Save the key")}
        </button>
        <CopyButton text={line} label={t("key")} />
      </p>
    </div>
  );
}

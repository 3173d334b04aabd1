/** How a view is changed: everything goes into the address at once, and under a name when it is kept. */

import { useState } from "preact/hooks";
import * as api from "../../api.ts";
import { parseSpan, toLocal } from "../../core/format.ts";
import { KINDS, type Kind, nameProblem, partOf, SAVED_LIMITS, type SavedView, savedText } from "../../core/saved.ts";
import { parseWindow } from "../../core/window.ts";
import { t } from "../../core/words.ts";
import { identity, mayPublish } from "../../identity.ts";
import { navigate, route, setParams, to } from "../../router.ts";

const KIND_WORDS: Record<Kind, string> = { chart: t("Chart"), value: t("Value"), picture: t("Picture") };

/** What is kept under the name of a view. */
export interface Kept {
  view: SavedView | null;
  /** By which it is replaced; null where there is none yet. */
  tag: string | null;
  isAsked: boolean;
  problem: string | null;
  /** Asks again, or takes what has just been kept. */
  renew(known?: { view: SavedView; tag: string }): void;
}

interface EditProps {
  name: string;
  view: SavedView;
  kept: Kept;
  onChange: (view: SavedView) => void;
  topicOf: (name: string) => string;
}

export function EditView({ name, view, kept, onChange, topicOf }: EditProps) {
  const window = parseWindow(route.value.params);
  return (
    <>
      <div class="saved-edit">
        <Draft label={t("Title")} value={view.title} onDone={(title) => onChange({ ...view, title })} />
        <Draft
          label={t("How far back")}
          value={view.since}
          size={6}
          onDone={(since) => parseSpan(since) !== null && onChange({ ...view, since })}
        />
        <Draft label={t("Marks from topic")} value={view.marks} onDone={(marks) => onChange({ ...view, marks })} />
        {view.window ? (
          <button
            type="button"
            onClick={() => {
              setParams({ from: null, to: null });
              onChange({ ...view, window: null });
            }}
          >
            {t("Up to now again")}
          </button>
        ) : (
          window && (
            <button type="button" onClick={() => onChange({ ...view, window })}>
              {t("Stay at")} {toLocal(window.from).replace("T", " ")} {t("to")} {toLocal(window.to).replace("T", " ")}
            </button>
          )
        )}
      </div>
      <AddPart view={view} onChange={onChange} />
      <Keep name={name} view={view} kept={kept} topicOf={topicOf} />
    </>
  );
}

interface DraftProps {
  label: string;
  value: string;
  size?: number;
  onDone: (text: string) => void;
}

/** A text that counts when it is written: the page is drawn anew while somebody types. */
function Draft({ label, value, size, onDone }: DraftProps) {
  const [typed, setTyped] = useState<string | null>(null);
  return (
    <label>
      {label}
      <input
        value={typed ?? value}
        size={size}
        maxLength={SAVED_LIMITS.text}
        onInput={(event) => setTyped(event.currentTarget.value)}
        onChange={(event) => {
          onDone(event.currentTarget.value.trim());
          setTyped(null);
        }}
      />
    </label>
  );
}

function AddPart({ view, onChange }: Pick<EditProps, "view" | "onChange">) {
  const [kind, setKind] = useState<Kind>("chart");
  const [topic, setTopic] = useState("");
  const [fields, setFields] = useState("");
  const [problem, setProblem] = useState("");
  return (
    <form
      class="saved-edit"
      onSubmit={(event) => {
        event.preventDefault();
        const given = fields.split(",").map((each) => each.trim());
        const part = partOf({ kind, topic: topic.trim(), fields: given.filter((each) => each !== "") });
        if (part === null)
          setProblem(
            kind === "chart" ? t("This is no topic or topic filter.") : t("This is no topic without wildcards."),
          );
        else if (view.parts.length >= SAVED_LIMITS.parts)
          setProblem(t("A view has at most {parts} parts.", { parts: SAVED_LIMITS.parts }));
        else {
          setProblem("");
          setTopic("");
          setFields("");
          onChange({ ...view, parts: [...view.parts, part] });
        }
      }}
    >
      <label>
        {t("Add")}
        <select value={kind} onChange={(event) => setKind(event.currentTarget.value as Kind)}>
          {KINDS.map((each) => (
            <option key={each} value={each}>
              {KIND_WORDS[each]}
            </option>
          ))}
        </select>
      </label>
      <label>
        {t("Topic")}
        <input
          class="mono"
          value={topic}
          placeholder="sensors/+/state"
          onInput={(event) => setTopic(event.currentTarget.value)}
        />
      </label>
      {kind !== "picture" && (
        <label>
          {kind === "chart" ? t("Fields") : t("Field")}
          <input
            class="mono"
            value={fields}
            placeholder={kind === "chart" ? "temperature, humidity" : "temperature"}
            onInput={(event) => setFields(event.currentTarget.value)}
          />
        </label>
      )}
      <button type="submit">{t("Add")}</button>
      <p class="problem" role="status">
        {problem}
      </p>
    </form>
  );
}

function Keep({ name, view, kept, topicOf }: Omit<EditProps, "onChange">) {
  const [wanted, setWanted] = useState(name);
  const [said, setSaid] = useState("");
  const [conflict, setConflict] = useState(false);
  const above = identity.value?.views ?? null;
  if (above === null) return null;
  const problem = nameProblem(wanted);
  if (mayPublish(topicOf(wanted || "x")) === false)
    return <p class="soft note">{t("You may not keep views here; the address has all of it.")}</p>;
  const save = async (over: boolean) => {
    // under its own name in the place of what was seen, under another one only where there is none
    const tag = over ? undefined : wanted === name ? kept.tag : null;
    setSaid(t("On its way…"));
    setConflict(false);
    try {
      const made = await api.keep(topicOf(wanted), savedText(view), tag);
      kept.renew({ view, tag: made });
      navigate(to.saved(wanted));
    } catch (error) {
      setConflict(api.isConflict(error));
      setSaid(
        api.isConflict(error)
          ? wanted === name
            ? t("Somebody has kept another one under this name meanwhile.")
            : t("There is a view of this name already.")
          : (error as Error).message,
      );
    }
  };
  return (
    <form
      class="saved-edit"
      onSubmit={(event) => {
        event.preventDefault();
        if (problem === null) void save(false);
      }}
    >
      <label>
        {t("Keep as")}
        <input value={wanted} maxLength={64} onInput={(event) => setWanted(event.currentTarget.value)} />
      </label>
      <button type="submit" class="primary" disabled={problem !== null}>
        {t("Save")}
      </button>
      {conflict && (
        <>
          <a href={to.saved(wanted)} target="_blank" rel="noopener">
            {t("Look at it")}
          </a>
          <button type="button" class="danger" onClick={() => void save(true)}>
            {t("Replace it")}
          </button>
        </>
      )}
      <p class="problem" role="status">
        {said || (wanted !== "" && problem) || ""}
      </p>
    </form>
  );
}

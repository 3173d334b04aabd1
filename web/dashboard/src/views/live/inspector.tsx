/** One message: the picked one, or the newest as it comes. */

import { useEffect, useState } from "preact/hooks";
import * as api from "../../api.ts";
import { formatMoment, formatSpan } from "../../core/format.ts";
import { utf8 } from "../../core/hex.ts";
import { imageOf } from "../../core/images.ts";
import type { LiveStore, StoredMessage } from "../../core/store.ts";
import { t } from "../../core/words.ts";
import { TopicActs } from "../../parts/acts.tsx";
import { Hex, PayloadView, Raw } from "../../parts/payload.tsx";
import { route, setParams } from "../../router.ts";

type Form = "formatted" | "raw" | "hex";

interface InspectorProps {
  store: LiveStore;
  version: number;
  picked: StoredMessage | null;
  onFollow: () => void;
  /** The filter that is seen; null where it is one topic. */
  below: string | null;
}

export function Inspector({ store, picked, onFollow, below }: InspectorProps) {
  const asked = route.value.params.get("as");
  const form: Form = asked === "raw" || asked === "hex" ? asked : "formatted";
  let message = picked;
  if (!message) {
    for (let index = store.length - 1; index >= 0; index--) {
      const row = store.row(index);
      if (row?.kind === "message") {
        message = row.message;
        break;
      }
    }
  }
  if (!message) return null;
  const previous = store.before(message);
  return (
    <section class="inspector" aria-labelledby="inspector-title">
      <div class="section-head">
        <h2 id="inspector-title">{picked ? t("Message") : t("Newest message")}</h2>
        {picked && (
          <button type="button" class="quiet" onClick={onFollow}>
            {t("Follow the newest")}
          </button>
        )}
        <span class="spread" />
        <button type="button" class="quiet" onClick={() => save(message)}>
          {t("Download")}
        </button>
        <fieldset class="segments">
          <legend class="sr">{t("Show the payload as")}</legend>
          {(["formatted", "raw", "hex"] as const).map((entry) => (
            <button
              key={entry}
              type="button"
              aria-pressed={form === entry}
              onClick={() => setParams({ as: entry === "formatted" ? null : entry })}
            >
              {entry === "formatted" ? t("Formatted") : entry === "raw" ? t("Raw") : t("Hex")}
            </button>
          ))}
        </fieldset>
      </div>
      <p class="about num">
        <span class="topic">{message.topic}</span>
        <span>{formatMoment(message.time, true)}</span>
        <span>
          {previous
            ? t("{value} after the one before", { value: formatSpan(message.time - previous.time) })
            : t("first one here")}
        </span>
        {message.qos > 0 && <span>QoS {message.qos}</span>}
        {message.retained && <span>{t("retained")}</span>}
        <span>seq {message.seq}</span>
      </p>
      {message.isUnreadable && (
        <p class="warn" role="status">
          {t("The gateway is to make JSON of it, and can’t: these are its bytes.")} <code>gateway explain</code>{" "}
          {t("says why.")}
        </p>
      )}
      <TopicActs topic={message.topic} below={below} value={valueText(message)} />
      {form === "formatted" ? (
        <PayloadView
          payload={message.payload}
          encoding={message.encoding}
          previous={previous && previous.encoding === message.encoding ? previous.payload : undefined}
        />
      ) : (
        <Exact message={message} form={form} />
      )}
    </section>
  );
}

/** A payload to copy: text as it came, JSON in one line; bytes have no text. */
function valueText({ payload, encoding }: StoredMessage): string | undefined {
  if (encoding !== undefined) return undefined;
  return typeof payload === "string" ? payload : JSON.stringify(payload);
}

/** The payload as a file: a picture under its type, all else as bytes. */
async function save(message: StoredMessage): Promise<void> {
  const { data } = await api.exactBytes(message);
  const picture = imageOf(data);
  const ending = picture?.ending ?? (utf8(data) === null ? "bin" : "txt");
  const name = `${message.topic.slice(-80).replace(/[^\w.-]+/g, "-")}-${message.seq}.${ending}`;
  api.saveBytes(data, picture?.type ?? "application/octet-stream", name);
}

/** The payload's own bytes: JSON that was parsed and written again would hide how it was sent. */
function Exact({ message, form }: { message: StoredMessage; form: "raw" | "hex" }) {
  const [bytes, setBytes] = useState<{ n: number; data: Uint8Array; exact: boolean } | null>(null);
  useEffect(() => {
    let gone = false;
    api.exactBytes(message).then((data) => {
      if (!gone) setBytes({ n: message.n, ...data });
    });
    return () => {
      gone = true;
    };
  }, [message]);
  if (!bytes) return <p class="late soft">{t("Fetching the bytes…")}</p>;
  const text = form === "raw" ? utf8(bytes.data) : null;
  return (
    <>
      {text === null ? (
        <Hex bytes={bytes.data} />
      ) : text === "" ? (
        <p class="soft">{t("An empty payload.")}</p>
      ) : (
        <Raw text={text} />
      )}
      {!bytes.exact && (
        <p class="soft">{t("Written from the value: the gateway no longer has this message’s own bytes.")}</p>
      )}
    </>
  );
}

/** A payload as it is best read: JSON by lines with what changed marked, text as text, anything else as bytes. */

import { changedPaths, formatJson, isMarked, removedPaths } from "../core/diff.ts";
import { counted, formatBytes } from "../core/format.ts";
import { bytesFromBase64, hexLines } from "../core/hex.ts";
import { imageWord, MAX_IMAGE_BYTES } from "../core/images.ts";
import { t } from "../core/words.ts";
import { Picture } from "./picture.tsx";

interface PayloadProps {
  payload: unknown;
  encoding: string | undefined;
  /** What was there before, to mark changes; undefined when there is nothing to compare with. */
  previous: unknown;
}

export function PayloadView({ payload, encoding, previous }: PayloadProps) {
  if (encoding === "base64" && typeof payload === "string") {
    const bytes = <Hex bytes={bytesFromBase64(payload)} />;
    const isPicture = imageWord(payload) !== null && payload.length * 0.75 <= MAX_IMAGE_BYTES;
    return isPicture ? <Picture base64={payload} otherwise={bytes} /> : bytes;
  }
  if (typeof payload === "string") {
    if (payload === "") return <p class="soft">{t("An empty payload.")}</p>;
    return <Raw text={payload} />;
  }
  const { lines, cut } = formatJson(payload);
  const changed = previous === undefined ? new Set<string>() : changedPaths(previous, payload);
  const removed = previous === undefined ? [] : removedPaths(previous, payload);
  return (
    <>
      <pre class="json" tabIndex={0}>
        {lines.map((line, index) => (
          <span key={index} class={isMarked(line, changed) ? "line changed" : "line"}>
            {"  ".repeat(line.depth)}
            {line.tokens.map((token, at) => (
              <span key={at} class={`j-${token.kind}`}>
                {token.text}
              </span>
            ))}
            {"\n"}
          </span>
        ))}
      </pre>
      {cut > 0 && <p class="soft">{counted(cut, "more line")}.</p>}
      {removed.length > 0 && (
        <p class="soft">
          {t("Gone since the message before:")} <code>{removed.slice(0, 8).join(", ")}</code>
        </p>
      )}
    </>
  );
}

export function Raw({ text }: { text: string }) {
  const limit = 100_000;
  return (
    <>
      <pre class="raw" tabIndex={0}>
        {text.slice(0, limit)}
      </pre>
      {text.length > limit && <p class="soft">{counted(text.length - limit, "more character")}.</p>}
    </>
  );
}

export function Hex({ bytes }: { bytes: Uint8Array }) {
  const { lines, cut } = hexLines(bytes);
  if (bytes.length === 0) return <p class="soft">{t("An empty payload.")}</p>;
  return (
    <>
      <pre class="hex" tabIndex={0}>
        {lines.map((line) => (
          <span key={line.offset} class="line">
            <span class="j-punctuation">{line.offset}</span>
            {"  "}
            {line.hex}
            {"  "}
            <span class="j-string">{line.text}</span>
            {"\n"}
          </span>
        ))}
      </pre>
      <p class="soft num">
        {formatBytes(bytes.length)}
        {cut > 0 ? t("; {cut} not shown", { cut: formatBytes(cut) }) : ""}
      </p>
    </>
  );
}

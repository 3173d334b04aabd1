/** A button that copies and says that it did. */
import { useEffect, useRef, useState } from "preact/hooks";
import { t } from "../core/words.ts";
import { CopyIcon } from "./icons.tsx";

export function CopyButton({ text, label, word = t("Copy") }: { text: string; label: string; word?: string }) {
  const [said, setSaid] = useState("");
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid(t("Copied"));
    } catch {
      // Pages without TLS have no clipboard, except on localhost.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      setSaid(document.execCommand("copy") ? t("Copied") : t("Copying is blocked here"));
      area.remove();
    }
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => setSaid(""), 2000);
  };
  return (
    <button type="button" class="quiet" onClick={copy} aria-label={t("Copy {label}", { label })}>
      <CopyIcon />
      <span class="copy-said" aria-live="polite">
        {said || word}
      </span>
    </button>
  );
}

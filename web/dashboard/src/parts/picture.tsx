/**
 * Pictures that topics carry. A browser gets them as blobs under the type that their first bytes say, in an <img>, where
 * nothing runs; what is too large in bytes or pixels is not shown, and said.
 */

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "../api.ts";
import { formatBytes } from "../core/format.ts";
import { bytesFromBase64 } from "../core/hex.ts";
import { imageOf, imageProblem, MAX_IMAGE_BYTES } from "../core/images.ts";
import { t } from "../core/words.ts";
import { to } from "../router.ts";

/** The address of bytes as a picture of this type, for as long as they are shown. */
function useBlob(bytes: Uint8Array | null, type: string): string | null {
  const [address, setAddress] = useState<string | null>(null);
  useLayoutEffect(() => {
    if (bytes === null) return undefined;
    const made = URL.createObjectURL(new Blob([new Uint8Array(bytes)], { type }));
    setAddress(made);
    return () => URL.revokeObjectURL(made);
  }, [bytes, type]);
  return address;
}

interface PictureProps {
  base64: string;
  /** What is shown where it can't be. */
  otherwise: ComponentChildren;
}

/** A payload that begins like a picture. */
export function Picture({ base64, otherwise }: PictureProps) {
  const bytes = useMemo(() => bytesFromBase64(base64), [base64]);
  const kind = useMemo(() => imageOf(bytes), [bytes]);
  const problem = kind && imageProblem(bytes.length, kind);
  const address = useBlob(kind && problem === null ? bytes : null, kind?.type ?? "");
  const [broken, setBroken] = useState<string | null>(null);
  if (kind === null || broken === base64) return <>{otherwise}</>;
  const about = `${kind.name}, ${kind.width} × ${kind.height}, ${formatBytes(bytes.length)}`;
  if (problem !== null)
    return (
      <p class="soft">
        {about}
        {t(": not shown, since it is")} {problem}.
      </p>
    );
  return (
    <figure class="picture">
      {address !== null && (
        <img src={address} alt={t("Picture, {about}", { about })} decoding="async" onError={() => setBroken(base64)} />
      )}
      <figcaption class="num">{about}</figcaption>
    </figure>
  );
}

/** How often a tile looks whether there is a newer picture, and how large one may be that is only seen small. */
const LOOK_MS = 10_000;
const MAX_TILE_BYTES = Math.min(4 * 2 ** 20, MAX_IMAGE_BYTES);

interface TileProps {
  topic: string;
  /** What it is a picture of. */
  label: string;
  /** Shown as large as there is room. */
  large?: boolean;
  /** The address that it leads to; null: none. */
  href?: string | null;
}

/** The newest picture of a topic, fetched while it is in view; nothing where there is none that can be shown. */
export function Tile({ topic, label, large = false, href = to.live(topic) }: TileProps) {
  const box = useRef<HTMLSpanElement>(null);
  const [bytes, setBytes] = useState<Uint8Array | null>(null);
  const [broken, setBroken] = useState<Uint8Array | null>(null);
  useEffect(() => {
    const ending = new AbortController();
    let isSeen = false;
    const look = () => {
      if (!isSeen || document.visibilityState === "hidden") return;
      api.newestPayload(topic, large ? MAX_IMAGE_BYTES : MAX_TILE_BYTES, ending.signal).then(
        (found) => {
          if (!ending.signal.aborted) setBytes((shown) => (found && shown && isSame(found, shown) ? shown : found));
        },
        // who may not read it, or can't just now, sees what there was
        () => undefined,
      );
    };
    const observer = new IntersectionObserver((entries) => {
      const was = isSeen;
      isSeen = entries.at(-1)?.isIntersecting ?? false;
      if (isSeen && !was) look();
    });
    if (box.current) observer.observe(box.current);
    const again = setInterval(look, LOOK_MS);
    return () => {
      ending.abort();
      observer.disconnect();
      clearInterval(again);
    };
  }, [topic, large]);
  const kind = useMemo(() => bytes && imageOf(bytes), [bytes]);
  const isShown = bytes !== null && kind !== null && imageProblem(bytes.length, kind) === null && broken !== bytes;
  const address = useBlob(isShown ? bytes : null, kind?.type ?? "");
  const picture = address !== null && isShown && (
    <img src={address} alt={label} decoding="async" onError={() => setBroken(bytes)} />
  );
  return (
    <span ref={box} class={large ? "picture" : "tile"} hidden={bytes !== null && !isShown}>
      {picture && href !== null ? <a href={href}>{picture}</a> : picture}
    </span>
  );
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

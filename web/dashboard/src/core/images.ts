/**
 * Which payloads are pictures, by their first bytes: JPEG, PNG, WebP and GIF, which hold no scripts. SVG and HTML are never
 * taken for one. What a picture will take in memory is read from its header, before a browser is given it.
 */
import { t } from "./words.ts";

interface ImageKind {
  /** The media type. */
  type: string;
  name: string;
  /** The end of a file's name. */
  ending: string;
  width: number;
  height: number;
}

/** Larger ones are not shown: bytes of a file, and pixels, of which each takes four bytes when it is drawn. */
export const MAX_IMAGE_BYTES = 16 * 2 ** 20;
const MAX_IMAGE_PIXELS = 32_000_000;

/** Bytes in which the header of a JPEG is looked for: thumbnails and profiles may stand before it. */
const MAX_HEADER = 512 * 1024;

const ascii = (bytes: Uint8Array, at: number, text: string): boolean =>
  [...text].every((letter, index) => bytes[at + index] === letter.charCodeAt(0));

/** What kind of picture bytes are; null where they are none, or their header is cut off or of no size. */
export function imageOf(bytes: Uint8Array): ImageKind | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let found: ImageKind | null = null;
  try {
    if (ascii(bytes, 0, "\x89PNG\r\n\x1a\n") && ascii(bytes, 12, "IHDR"))
      found = { type: "image/png", name: "PNG", ending: "png", width: view.getUint32(16), height: view.getUint32(20) };
    else if (ascii(bytes, 0, "GIF87a") || ascii(bytes, 0, "GIF89a"))
      found = {
        type: "image/gif",
        name: "GIF",
        ending: "gif",
        width: view.getUint16(6, true),
        height: view.getUint16(8, true),
      };
    else if (ascii(bytes, 0, "RIFF") && ascii(bytes, 8, "WEBP")) {
      const size = webpSize(bytes, view);
      found = size && { type: "image/webp", name: "WebP", ending: "webp", ...size };
    } else if (ascii(bytes, 0, "\xff\xd8\xff")) {
      const size = jpegSize(view);
      found = size && { type: "image/jpeg", name: "JPEG", ending: "jpg", ...size };
    }
  } catch (error) {
    // a header that ends too soon
    if (!(error instanceof RangeError)) throw error;
  }
  return found && found.width > 0 && found.height > 0 ? found : null;
}

interface Size {
  width: number;
  height: number;
}

/** RFC 9649 §2.5 to §2.7: lossy, lossless, extended. */
function webpSize(bytes: Uint8Array, view: DataView): Size | null {
  if (ascii(bytes, 12, "VP8 ") && ascii(bytes, 23, "\x9d\x01\x2a"))
    return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
  if (ascii(bytes, 12, "VP8L") && bytes[20] === 0x2f) {
    const bits = view.getUint32(21, true);
    return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
  }
  if (ascii(bytes, 12, "VP8X")) {
    const three = (at: number) => view.getUint16(at, true) + view.getUint8(at + 2) * 65_536 + 1;
    return { width: three(24), height: three(27) };
  }
  return null;
}

/** ITU-T T.81 §B.2.2: the frame header is the first segment SOF0 to SOF15 other than DHT, JPG and DAC. */
function jpegSize(view: DataView): Size | null {
  for (let at = 2; at < Math.min(view.byteLength, MAX_HEADER); ) {
    if (view.getUint8(at) !== 0xff) return null;
    const marker = view.getUint8(at + 1);
    // bytes that fill up, and markers without a segment
    if (marker === 0xff) at += 1;
    else if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) at += 2;
    else if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc)
      return { height: view.getUint16(at + 5), width: view.getUint16(at + 7) };
    else at += 2 + Math.max(2, view.getUint16(at + 2));
  }
  return null;
}

/** Why a picture isn't shown; null where nothing is against it. */
export function imageProblem(bytes: number, { width, height }: Size): string | null {
  if (bytes > MAX_IMAGE_BYTES) return t("larger than {most} MiB", { most: MAX_IMAGE_BYTES / 2 ** 20 });
  if (width * height > MAX_IMAGE_PIXELS)
    return t("of more than {most} million pixels", { most: MAX_IMAGE_PIXELS / 1e6 });
  return null;
}

/** What the first bytes of each kind are in base64, as far as three bytes are four letters. */
const BEGINNINGS: readonly (readonly [string, string])[] = [
  ["/9j/", "JPEG"],
  ["iVBORw0KGgo", "PNG"],
  ["R0lGODdh", "GIF"],
  ["R0lGODlh", "GIF"],
];

/** The name of the kind of picture that a payload in base64 begins like; null where it is none. */
export function imageWord(base64: string): string | null {
  for (const [beginning, name] of BEGINNINGS) if (base64.startsWith(beginning)) return name;
  return base64.startsWith("UklGR") && /^.{12}RUJQ/.test(base64) ? "WebP" : null;
}

/** Whether a message carries a picture, as its first bytes say. */
export function hasPicture(payload: unknown, encoding: string | undefined): boolean {
  return encoding !== undefined && typeof payload === "string" && imageWord(payload) !== null;
}

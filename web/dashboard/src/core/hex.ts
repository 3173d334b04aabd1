/** Bytes as the lines of a hex dump: offset, sixteen bytes, the printable ones as characters. */

interface HexLine {
  offset: string;
  hex: string;
  text: string;
}

export function hexLines(bytes: Uint8Array, limit = 4096, width = 16): { lines: HexLine[]; cut: number } {
  const shown = Math.min(bytes.length, limit);
  const lines: HexLine[] = [];
  for (let start = 0; start < shown; start += width) {
    const row = bytes.subarray(start, Math.min(start + width, shown));
    const parts: string[] = [];
    let text = "";
    for (const [index, byte] of row.entries()) {
      parts.push(byte.toString(16).padStart(2, "0") + (index === width / 2 - 1 ? " " : ""));
      text += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "·";
    }
    lines.push({ offset: start.toString(16).padStart(4, "0"), hex: parts.join(" ").padEnd(width * 3), text });
  }
  return { lines, cut: bytes.length - shown };
}

export function bytesFromBase64(text: string): Uint8Array {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let index = 0; index < raw.length; index++) bytes[index] = raw.charCodeAt(index);
  return bytes;
}

/** The text of bytes that are UTF-8; null for others, which are then shown as bytes. */
export function utf8(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

import { describe, expect, it } from "vitest";
import { imageOf, imageProblem, imageWord, MAX_IMAGE_BYTES } from "../src/core/images.ts";
import { summary } from "../src/core/values.ts";

const bytes = (...parts: (string | number[])[]): Uint8Array =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === "string" ? [...part].map((c) => c.charCodeAt(0)) : part)));

const PNG = bytes("\x89PNG\r\n\x1a\n", [0, 0, 0, 13], "IHDR", [0, 0, 2, 0x80, 0, 0, 1, 0xe0]);
const GIF = bytes("GIF89a", [0x40, 1, 0xf0, 0]);
const JPEG = bytes(
  [0xff, 0xd8, 0xff, 0xe0, 0, 16, ...new Array(14).fill(0)],
  [0xff, 0xff, 0xdb, 0, 5, 1, 2, 3],
  [0xff, 0xc4, 0, 3, 9],
  [0xff, 0xc2, 0, 17, 8, 1, 0xe0, 2, 0x80],
);
const LOSSY = bytes("RIFF", [1, 2, 3, 4], "WEBPVP8 ", [0, 0, 0, 0, 0, 0, 0, 0x9d, 1, 0x2a, 0x80, 2, 0xe0, 1]);
const LOSSLESS = bytes("RIFF", [1, 2, 3, 4], "WEBPVP8L", [0, 0, 0, 0, 0x2f, 0x7f, 0xc2, 0x77, 0]);
const EXTENDED = bytes("RIFF", [1, 2, 3, 4], "WEBPVP8X", [10, 0, 0, 0, 0, 0, 0, 0, 0x7f, 2, 0, 0xdf, 1, 0]);

describe("pictures", () => {
  it.each([
    ["image/png", PNG],
    ["image/jpeg", JPEG],
    ["image/webp", LOSSY],
    ["image/webp", LOSSLESS],
    ["image/webp", EXTENDED],
  ])("of %s tell their size in their header", (type, data) => {
    expect(imageOf(data)).toMatchObject({ type, width: 640, height: 480 });
  });
  it("of GIF, too", () => expect(imageOf(GIF)).toMatchObject({ type: "image/gif", width: 320, height: 240 }));
  it("are none where the header is cut off, wherever that is, and nothing is read behind the end", () => {
    for (const data of [PNG, GIF, JPEG, LOSSY, LOSSLESS, EXTENDED])
      for (let length = 0; length < data.length; length++) expect(imageOf(data.slice(0, length))).toBeNull();
  });
  it("are none where they have no size", () => expect(imageOf(bytes("GIF89a", [0, 0, 1, 0]))).toBeNull());
  it("are never what a browser might run", () => {
    for (const text of [
      "<svg xmlns='http://www.w3.org/2000/svg'/>",
      "<html><script>",
      "%PDF-1.7",
      "",
      "BM",
      "RIFF1234AVI ",
    ])
      expect(imageOf(bytes(text))).toBeNull();
  });
  it("that are too large are not shown, by bytes and by what they take when they are drawn", () => {
    expect(imageProblem(1000, { width: 640, height: 480 })).toBeNull();
    expect(imageProblem(MAX_IMAGE_BYTES + 1, { width: 1, height: 1 })).toContain("16 MiB");
    expect(imageProblem(1000, { width: 65_535, height: 65_535 })).toContain("32 million");
  });
  it("are known in base64 by the same bytes", () => {
    const base64 = (data: Uint8Array) => btoa(String.fromCharCode(...data));
    expect([PNG, JPEG, GIF, LOSSY, LOSSLESS].map((data) => imageWord(base64(data)))).toEqual([
      "PNG",
      "JPEG",
      "GIF",
      "WebP",
      "WebP",
    ]);
    expect(imageWord(base64(bytes("RIFF1234AVI ....")))).toBeNull();
    expect(summary(base64(PNG), "base64", 100)).toBe("(PNG picture)");
    expect(summary("AAEC", "base64", 100)).toBe("(binary)");
  });
});

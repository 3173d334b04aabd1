/**
 * The page's words in the visitor's language.
 *
 * English stands in the code; for another language there is a table from that to its own words. A text that a table lacks
 * stays English; `test/words.test.ts` finds it. What the gateway, devices and people wrote is never translated.
 */

/** By the English text. */
export type Table = Readonly<Record<string, string>>;

let table: Table = {};

/** Chooses a language; what was translated before stays as it is, so this comes first. */
export function speak(words: Table): void {
  table = words;
}

/**
 * A text in the visitor's language.
 *
 * @param text in English, with names in braces for `values`.
 */
export function t(text: string, values?: Readonly<Record<string, string | number>>): string {
  const found = table[text] ?? text;
  return values ? found.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole)) : found;
}

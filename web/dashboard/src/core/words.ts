/**
 * The page's words in the visitor's language.
 *
 * English stands in the code; for another language there is a table from that to its own words. A text that a table lacks
 * stays English; `test/words.test.ts` finds it. What devices and people wrote is never translated; what the gateway says is worded by its
 * codes (`told.ts`).
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
  const found = translated(text) ?? text;
  return values ? found.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole)) : found;
}

/** The same for a text out of a table; null where the visitor's language has none, as where that is English. */
export function translated(text: string): string | null {
  return Object.hasOwn(table, text) ? (table[text] ?? null) : null;
}

/** Looking for words in names and texts, in any order and case, and showing where they were found. */

/** What a query looks for, in lower case. */
export const wordsOf = (query: string): string[] => query.toLowerCase().split(/\s+/).filter(Boolean);

/** Whether every word is in the name or in the text, which is made only where the name lacks one. Both in lower case. */
export function holdsAll(words: readonly string[], name: string, text: () => string): boolean {
  let made: string | null = null;
  for (const word of words) {
    if (name.includes(word)) continue;
    made ??= text();
    if (!made.includes(word)) return false;
  }
  return true;
}

export interface Piece {
  text: string;
  isFound: boolean;
}

/** A text in pieces, those that are one of the words among them. */
export function piecesOf(text: string, words: readonly string[]): Piece[] {
  const lower = text.toLowerCase();
  const pieces: Piece[] = [];
  let from = 0;
  while (from < text.length) {
    let at = -1;
    let length = 0;
    for (const word of words) {
      const found = lower.indexOf(word, from);
      if (found >= 0 && (at < 0 || found < at || (found === at && word.length > length))) {
        at = found;
        length = word.length;
      }
    }
    if (at < 0) break;
    if (at > from) pieces.push({ text: text.slice(from, at), isFound: false });
    pieces.push({ text: text.slice(at, at + length), isFound: true });
    from = at + length;
  }
  if (from < text.length) pieces.push({ text: text.slice(from), isFound: false });
  return pieces;
}

/** Characters before a word that is shown where it stands. */
const LEAD = 8;

/** The part of a long text in which the first of these words is that `shown` lacks; null where that has all of them. */
export function excerpt(text: string, shown: string, words: readonly string[], limit: number): string | null {
  const [seen, lower] = [shown.toLowerCase(), text.toLowerCase()];
  for (const word of words) {
    if (seen.includes(word)) continue;
    const at = lower.indexOf(word);
    if (at < 0) continue;
    const from = Math.max(0, at - LEAD);
    const part = text.slice(from, from + limit).replace(/\s+/g, " ");
    return `${from > 0 ? "…" : ""}${part}${from + limit < text.length ? "…" : ""}`;
  }
  return null;
}

/** Names on one line where there is not enough room for all of them. */
import { piecesOf } from "../core/search.ts";

interface CutProps {
  text: string;
  /** What the pointer is told; the text itself unless something says more. */
  title?: string;
  /** Words to mark, in lower case. */
  words?: readonly string[];
}

/** A name whose end stays in view, for there names differ: "…" stands for its beginning, and the whole is its tooltip. */
export function Cut({ text, title = text, words = [] }: CutProps) {
  return (
    <span class="cut" title={title}>
      <bdi dir="ltr">
        <Marked text={text} words={words} />
      </bdi>
    </span>
  );
}

/** A text with the words marked that were looked for. */
export function Marked({ text, words }: { text: string; words: readonly string[] }) {
  if (words.length === 0) return <>{text}</>;
  return (
    <>
      {piecesOf(text, words).map((piece, index) =>
        piece.isFound ? <mark key={index}>{piece.text}</mark> : <span key={index}>{piece.text}</span>,
      )}
    </>
  );
}

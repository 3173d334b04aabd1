/** The past of sparklines, one question for all that are in view. */
import * as api from "./api.ts";
import type { Columns } from "./core/columns.ts";
import { DAY, finerWindow, pointsFor, trendKey, type WantedTrend } from "./core/trends.ts";
import { gatewayNow } from "./session.ts";

/** How far back is asked; less once it was seen that history is younger. */
let window = DAY;

/** The columns of the wanted trends, by `trendKey`; from the archive, or as far back as memory reaches. */
export async function loadTrends(wanted: readonly WantedTrend[]): Promise<ReadonlyMap<string, Columns>> {
  const topics = [...new Set(wanted.map(({ topic }) => topic))];
  const fields = [...new Set(wanted.map(({ field }) => field))];
  const keys = new Set(wanted.map(trendKey));
  const ask = async (span: number) => {
    const until = Math.round(gatewayNow());
    const question = {
      topics,
      fields,
      since: until - span,
      until,
      isOpen: true,
      points: pointsFor(span, wanted.length),
    };
    const found = new Map<string, Columns>();
    for (const { answer } of await api.columns(question)) {
      for (const [key, columns] of answer.series) if (keys.has(key)) found.set(key, columns);
    }
    return found;
  };
  let found = await ask(window);
  // Columns tell only about when the first reading was: a history of seconds is found in two steps.
  for (let tries = 0; tries < 2; tries++) {
    const finer = finerWindow(found.values(), window, gatewayNow());
    if (finer === null) break;
    if (window === DAY) setTimeout(growAgain, finer);
    window = finer;
    found = await ask(finer);
  }
  return found;
}

/** History grows, and a later visit asks for more. */
function growAgain(): void {
  window = DAY;
}

/**
 * How the place of a value in a JSON payload is written: `SDS0X1.PM2\.5`, `rx_metadata[0].rssi`.
 *
 * A dot stands between names, the number of an array's item in brackets behind its name, and a backslash before what
 * belongs to a name itself: `.`, `[`, `]`, `\`, a comma, a space at either end. The gateway's `core/paths.py` takes what is
 * written here; both read `tests/paths.json`.
 */

/** The name of a member, or the number of an array's item. */
export type Step = string | number;

/** A written path; "" is the payload itself. */
export type Field = string;

/** A name or a number as it stands in a path. */
export function stepText(step: Step): Field {
  return typeof step === "number" ? `[${step}]` : step.replace(/[.[\],\\]|^[ \t\r\n]|[ \t\r\n]$/g, "\\$&");
}

/** The path of what is one step inside another path. */
export function pathInto(path: Field, step: Step): Field {
  return path === "" || typeof step === "number" ? path + stepText(step) : `${path}.${stepText(step)}`;
}

const TOKEN = /\\(.)|\[(0|[1-9][0-9]{0,4})\]|([.[\]\\])|([^.[\]\\]+)/gsy;

/** Takes a written path apart; null when it is none, or when a name in it is empty. */
export function parsePath(text: Field): Step[] | null {
  const steps: Step[] = [];
  let name: string | null = "";
  for (const token of text.matchAll(TOKEN)) {
    const [, escaped, item, sign, plain] = token;
    if (item !== undefined) {
      if (name !== null && token.index > 0) steps.push(name);
      steps.push(Number(item));
      name = null;
    } else if (sign === ".") {
      if (name !== null) steps.push(name);
      name = "";
    } else if (sign !== undefined || name === null) return null;
    else name += escaped ?? plain;
  }
  if (name !== null) steps.push(name);
  return steps.includes("") ? null : steps;
}

/** The same subscription as a line to paste elsewhere. */

import { filterToPath } from "./filter.ts";
import { t } from "./words.ts";

interface CopyForm {
  name: string;
  text: string;
  /** Shown below the text: what to replace, or what it needs. */
  note: string;
}

/** A word for a POSIX shell. */
export function shellQuote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/**
 * @param base the dashboard's own address with a slash at the end, such as "https://host/gw/".
 * @param withToken true when the visitor signed in: the forms then show where a token goes, never the token itself.
 */
export function copyForms(base: string, filter: string, since: string, withToken: boolean): CopyForm[] {
  const http = new URL(base);
  const socket = `${http.protocol === "https:" ? "wss" : "ws"}://${http.host}${http.pathname}ws`;
  const header = withToken ? ` -H "Authorization: Bearer $TOKEN"` : "";
  const token = withToken ? t("Put a token into TOKEN first.") : "";
  const query = since === "" ? "" : `?since=${encodeURIComponent(since)}`;
  const javascript = [
    `import { connect } from ${JSON.stringify(`${base}client.js`)};`,
    "",
    `const live = connect(${JSON.stringify(socket)}, {`,
    `  topics: [${JSON.stringify(filter)}],`,
    ...(since === "" ? [] : [`  since: ${JSON.stringify(since)},`]),
    ...(withToken ? ["  token: TOKEN,"] : []),
    "});",
    `live.on("message", ({ topic, payload, time }) => console.log(topic, payload, new Date(time)));`,
  ].join("\n");
  return [
    { name: "JavaScript", text: javascript, note: token.replace("TOKEN", t("the variable TOKEN")) },
    {
      name: "curl",
      text: `curl -N${header} -H "Accept: text/event-stream" ${shellQuote(`${base}topics/${filterToPath(filter)}${query}`)}`,
      note: `${t("Server-sent events; ask for text/csv or application/x-ndjson to download instead.")} ${token}`.trim(),
    },
    {
      name: "gateway sub",
      text: `gateway sub${since === "" ? "" : ` --since ${shellQuote(since)}`} --url ${shellQuote(base)} ${shellQuote(filter)}`,
      note: withToken ? t("Reads the token from GATEWAY_TOKEN.") : "",
    },
    {
      name: "mosquitto_sub",
      text: `mosquitto_sub -h "$BROKER" -v -t ${shellQuote(filter)}`,
      note: t("Speaks to the broker itself: put its address into BROKER; it knows no history."),
    },
  ];
}

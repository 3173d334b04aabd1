/** Topic names and filters, as far as a page needs them; the gateway has the last word. */
import { t } from "./words.ts";

/** What is wrong with a topic filter in words, or null when it is fine. */
export function filterProblem(filter: string): string | null {
  if (filter === "") return t("A topic filter needs at least one character.");
  if (filter.includes("\0")) return t("A topic filter can't hold a null character.");
  const levels = filter.split("/");
  for (const [index, level] of levels.entries()) {
    if (level.includes("#") && (level !== "#" || index !== levels.length - 1)) {
      return t("“#” stands alone, as the last level: a/b/#");
    }
    if (level.includes("+") && level !== "+") return t("“+” stands for a whole level: a/+/c");
  }
  return null;
}

/** What is wrong with a topic to publish to, or null. */
export function topicProblem(topic: string): string | null {
  if (topic === "") return t("A topic needs at least one character.");
  if (/[+#]/.test(topic)) return t("A message goes to one topic: no “+” or “#”.");
  if (topic.includes("\0")) return t("A topic can't hold a null character.");
  if (topic.startsWith("$")) return t("Topics with “$” in front belong to the broker.");
  return null;
}

export function isWildcard(filter: string): boolean {
  return filter.split("/").some((level) => level === "+" || level === "#");
}

/** Whether a filter matches a topic, by the MQTT specification (a leading wildcard never matches `$…`). */
export function matches(filter: string, topic: string): boolean {
  const wanted = filter.split("/");
  const levels = topic.split("/");
  if (topic.startsWith("$") && (wanted[0] === "+" || wanted[0] === "#")) return false;
  for (const [index, level] of wanted.entries()) {
    if (level === "#") return true;
    if (index >= levels.length) return false;
    if (level !== "+" && level !== levels[index]) return false;
  }
  return wanted.length === levels.length;
}

/** Whether everything that `requested` can match is matched by `allowed`. */
export function covers(allowed: string, requested: string): boolean {
  const a = allowed.split("/");
  const r = requested.split("/");
  if (requested.startsWith("$") && (a[0] === "+" || a[0] === "#")) return false;
  for (const [index, level] of a.entries()) {
    if (level === "#") return true;
    const other = r[index];
    if (other === undefined || other === "#") return false;
    if (level !== "+" && level !== other) return false;
  }
  return a.length === r.length;
}

/** The filter that matches just what both match; null when nothing does. */
export function intersection(one: string, other: string): string | null {
  const a = one.split("/");
  const b = other.split("/");
  const joined: string[] = [];
  for (let index = 0; ; index++) {
    const x = a[index];
    const y = b[index];
    if (x === "#") return filterOf([...joined, ...b.slice(index)], one, other);
    if (y === "#") return filterOf([...joined, ...a.slice(index)], one, other);
    if (x === undefined || y === undefined) return x === y ? filterOf(joined, one, other) : null;
    if (x !== y && x !== "+" && y !== "+") return null;
    joined.push(x === "+" ? y : x);
  }
}

/** A wildcard in front never matches `$…`, so neither does what it is joined with. */
function filterOf(levels: string[], one: string, other: string): string | null {
  // "a/#" matches "a" as well, and that is what is left of it when the other ends there.
  const filter = levels.join("/");
  if (filter.startsWith("$") && (/^[+#]/.test(one) || /^[+#]/.test(other))) return null;
  return filter === "" && levels.length === 0 ? null : filter;
}

/** These filters without those that another one covers. */
export function minimal(filters: readonly string[]): string[] {
  const unique = [...new Set(filters)];
  return unique.filter((filter) => !unique.some((other) => other !== filter && covers(other, filter)));
}

/**
 * A filter as the path of an address. Slashes stay (they are levels); `#` and what a path can't hold are escaped, and
 * so are the slashes beside empty levels, which proxies like to merge, and beside `.` and `..`, which browsers resolve.
 */
export function filterToPath(filter: string): string {
  const levels = filter.split("/");
  const odd = (level: string | undefined) => level === "" || level === "." || level === "..";
  let path = "";
  for (const [index, level] of levels.entries()) {
    if (index > 0) path += odd(level) || odd(levels[index - 1]) ? "%2F" : "/";
    path += encodeURIComponent(level).replaceAll("%2B", "+").replaceAll("%24", "$").replaceAll("%3A", ":");
  }
  return path;
}

export function pathToFilter(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** What a list of topics has in common, to name the series by what differs: the levels that differ, joined. */
export function distinctLevels(topics: readonly string[]): string[] {
  if (topics.length < 2) return [...topics];
  const split = topics.map((topic) => topic.split("/"));
  const depth = Math.max(...split.map((levels) => levels.length));
  const differing: number[] = [];
  for (let level = 0; level < depth; level++) {
    const first = split[0]?.[level];
    if (split.some((levels) => levels[level] !== first)) differing.push(level);
  }
  const labels = split.map((levels) => {
    const own = differing.filter((level) => level < levels.length).map((level) => levels[level] ?? "");
    // empty levels alone name nothing
    return own.some((level) => level !== "") ? own.join("/") : levels.join("/");
  });
  const counts = new Map<string, number>();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  return labels.map((label, index) => (counts.get(label) === 1 ? label : (topics[index] ?? label)));
}

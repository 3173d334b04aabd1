/** Whether a topic filter matches a topic, both split at `/`. */
export function matches(filter: readonly string[], topic: readonly string[]): boolean {
  // MQTT-4.7.2-1: a leading wildcard matches no topic that begins with $
  if (topic[0]?.[0] === "$" && (filter[0] === "+" || filter[0] === "#")) return false;
  for (let i = 0; i < filter.length; i++) {
    if (filter[i] === "#") return true;
    if (i >= topic.length || (filter[i] !== "+" && filter[i] !== topic[i])) return false;
  }
  return filter.length === topic.length;
}

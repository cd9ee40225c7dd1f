// SPDX-License-Identifier: Apache-2.0
// Figures for people.

/** 1234 -> "1 234", 12345 -> "12.3k". */
export function count(number) {
  if (number >= 10_000) return `${(number / 1000).toFixed(number >= 100_000 ? 0 : 1)}k`;
  return String(number).replace(/\B(?=(\d{3})$)/, "\u202f");
}

export function seconds(value) {
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  return value < 60 ? `${value.toFixed(value < 10 ? 1 : 0)} s` : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

/** The figures of an answer, as [text, explanation]. */
export function figures(stats) {
  if (!stats) return [];
  const found = [];
  if (stats.rate) found.push([`${stats.rate < 10 ? stats.rate.toFixed(1) : Math.round(stats.rate)} tokens/s`, "Tokens per second while it was written"]);
  if (stats.ttft !== null && stats.ttft !== undefined) found.push([`first after ${seconds(stats.ttft)}`, "Time to the first token"]);
  if (stats.tokens) found.push([`${count(stats.tokens)} token${stats.tokens === 1 ? "" : "s"}`, stats.thought ? `${count(stats.thought)} of them thought` : "Tokens of the answer"]);
  if (stats.prompt) {
    const share = Math.round((100 * stats.cached) / stats.prompt);
    const reused = stats.cached ? `, ${share}\u202f% cached` : "";
    found.push([`prompt ${count(stats.prompt)}${reused}`, `${count(stats.cached)} of ${count(stats.prompt)} prompt tokens came from the cache`]);
  }
  return found;
}

/** When a conversation was last used, as a heading of the list. */
export function day(time) {
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  const days = Math.ceil((midnight.getTime() - time) / 86_400_000);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  return days <= 7 ? "Last seven days" : days <= 30 ? "Last thirty days" : "Older";
}

// SPDX-License-Identifier: Apache-2.0
// What a request asks for beside the conversation. An empty field leaves the choice to the model's own defaults.

const KEPT = "settings";

/** Numbers of the sampler: name on the wire, label, bounds, step. */
export const NUMBERS = [
  ["temperature", "Temperature", 0, 5, 0.05],
  ["top_p", "Top-p", 0.01, 1, 0.01],
  ["top_k", "Top-k", 0, 1000, 1],
  ["min_p", "Min-p", 0, 1, 0.01],
  ["repetition_penalty", "Repetition penalty", 0.5, 2, 0.01],
  ["frequency_penalty", "Frequency penalty", -2, 2, 0.05],
  ["presence_penalty", "Presence penalty", -2, 2, 0.05],
  ["max_tokens", "Tokens at most", 1, 1_000_000, 1],
  ["seed", "Seed", 0, 2 ** 32, 1],
];

export function lastSettings() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT));
    return found && typeof found === "object" && !Array.isArray(found) ? found : {};
  } catch {
    return {};
  }
}

export function keepSettings(settings) {
  try {
    localStorage.setItem(KEPT, JSON.stringify(settings));
  } catch { /* storage is refused or full: the conversation still has them */ }
}

/** What is wrong with a text of tools, or null. */
export function toolsFault(text) {
  if (!text?.trim()) return null;
  try {
    tools(text);
    return null;
  } catch (error) {
    return error.message;
  }
}

/** Tools from their JSON: OpenAI's list, or a list of bare functions. */
export function tools(text) {
  if (!text?.trim()) return undefined;
  const found = JSON.parse(text);
  const listed = Array.isArray(found) ? found : [found];
  const made = listed.map((one) => (one?.type === "function" ? one : { type: "function", function: one }));
  if (!made.every((one) => typeof one.function?.name === "string")) throw new Error("each tool is a function with a name");
  return made.length ? made : undefined;
}

/** The fields of a request. */
export function fields(settings) {
  const found = {};
  for (const [name] of NUMBERS) {
    if (Number.isFinite(settings[name])) found[name] = settings[name];
  }
  const stop = (settings.stop ?? "").split("\n").filter(Boolean).map((line) => line.replaceAll("\\n", "\n"));
  if (stop.length) found.stop = stop;
  return found;
}

/** Further fields that only chats know. */
export function chatFields(settings) {
  const found = {};
  if (settings.thinking === "off") found.enable_thinking = false;
  else if (settings.thinking === "on") found.enable_thinking = true;
  else if (settings.thinking) found.reasoning_effort = settings.thinking;
  const given = tools(settings.tools);
  if (given) found.tools = given;
  return found;
}

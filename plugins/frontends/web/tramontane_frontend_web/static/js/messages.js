// SPDX-License-Identifier: Apache-2.0
// Turns of the page as the API takes them.

/** Messages for /v1/chat/completions. */
export function chatMessages(turns, system) {
  const found = system?.trim() ? [{ role: "system", content: system }] : [];
  for (const turn of turns) {
    if (turn.role === "user") found.push({ role: "user", content: userContent(turn) });
    else if (turn.role === "assistant") found.push(assistant(turn));
    else found.push(...turn.results.map((one) => ({ role: "tool", tool_call_id: one.id, name: one.name, content: one.content })));
  }
  return found;
}

/** The text that a model without a chat template continues. */
export function plainPrompt(turns) {
  return turns.map((turn) => [...files(turn).map((file) => file.text), turn.content].join("\n")).join("");
}

function userContent(turn) {
  if (!files(turn).length) return turn.content;
  const parts = files(turn).map((file) => ({ type: "file", file: { filename: file.name, file_data: base64(file.text) } }));
  return turn.content ? [...parts, { type: "text", text: turn.content }] : parts;
}

function assistant(turn) {
  const made = { role: "assistant", content: turn.content };
  if (turn.reasoning) made.reasoning_content = turn.reasoning;
  if (turn.calls?.length) {
    made.content = turn.content || null;
    made.tool_calls = turn.calls.map((call) => ({
      id: call.id, type: "function", function: { name: call.name, arguments: call.arguments || "{}" },
    }));
  }
  return made;
}

function files(turn) {
  return turn.attachments ?? [];
}

function base64(text) {
  let binary = "";
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length; at += 0x8000) binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(binary);
}

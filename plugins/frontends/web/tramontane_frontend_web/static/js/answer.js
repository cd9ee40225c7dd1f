// SPDX-License-Identifier: Apache-2.0
// An answer that is arriving: chunks of the API into a turn, with the figures that go with it.

import { stream } from "./api.js";
import { chatMessages, plainPrompt } from "./messages.js";
import { chatFields, fields } from "./settings.js";

/** Ask for a turn and fill it in. `changed()` is called after each chunk; a stop is no error. */
export async function fill(turn, turns, settings, model, signal, changed) {
  const clock = { begun: performance.now(), first: 0, tokens: 0, atFirst: 0 };
  const chats = model?.chats !== false;
  const body = { model: model?.id ?? "default", ...fields(settings) };
  const asked = chats
    ? stream("v1/chat/completions", { ...body, ...chatFields(settings), messages: chatMessages(turns, settings.system) }, signal)
    : stream("v1/completions", { max_tokens: 256, ...body, prompt: plainPrompt(turns) }, signal);
  try {
    for await (const chunk of asked) {
      note(turn, chunk, clock);
      changed();
    }
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) turn.finish = "stopped";
    else throw error;
  } finally {
    turn.streaming = false;
  }
}

function note(turn, chunk, clock) {
  const choice = chunk.choices?.[0];
  if (choice) {
    const delta = choice.delta ?? { content: choice.text };
    const says = delta.content || delta.reasoning_content || delta.tool_calls;
    // A chunk may bring several tokens. What the first one brought waited for the prompt, and says nothing of the rate.
    clock.tokens = chunk.usage?.completion_tokens ?? clock.tokens + (says ? 1 : 0);
    if (says && !clock.first) Object.assign(clock, { first: performance.now(), atFirst: clock.tokens });
    if (delta.reasoning_content) turn.reasoning = (turn.reasoning ?? "") + delta.reasoning_content;
    if (turn.reasoning && (delta.content || delta.tool_calls)) turn.thought ??= (performance.now() - clock.begun) / 1000;
    if (delta.content) turn.content += delta.content;
    for (const piece of delta.tool_calls ?? []) addPiece(turn, piece);
    if (choice.finish_reason) turn.finish = choice.finish_reason;
  }
  turn.stats = chunk.usage && !choice ? final(chunk.usage) : live(clock);
}

function addPiece(turn, piece) {
  turn.calls ??= [];
  const call = (turn.calls[piece.index] ??= { id: "", name: "", arguments: "" });
  if (piece.id) call.id = piece.id;
  call.name += piece.function?.name ?? "";
  call.arguments += piece.function?.arguments ?? "";
}

/** Until the answer's own figures arrive. */
function live(clock) {
  const now = performance.now();
  const seconds = (now - clock.first) / 1000;
  return {
    live: true,
    ttft: clock.first ? (clock.first - clock.begun) / 1000 : null,
    rate: clock.tokens > clock.atFirst && seconds > 0 ? (clock.tokens - clock.atFirst) / seconds : null,
    tokens: clock.tokens,
  };
}

function final(usage) {
  return {
    live: false,
    ttft: usage.ttft_s ?? null,
    rate: usage.decode_tps ?? null,
    tokens: usage.completion_tokens,
    thought: usage.completion_tokens_details?.reasoning_tokens ?? 0,
    prompt: usage.prompt_tokens,
    cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
  };
}

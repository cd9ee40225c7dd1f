// SPDX-License-Identifier: Apache-2.0
// The server's API, by addresses relative to the page, so that it works wherever the page is mounted. The key is sent to
// the page's own origin alone; its policy lets no request go elsewhere.

const KEY = "api-key";

class ApiError extends Error {
  constructor(message, status, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const key = {
  get() {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
  },
  set(value, keep) {
    this.forget();
    if (value) (keep ? localStorage : sessionStorage).setItem(KEY, value);
  },
  forget() {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
  },
};

/** The models of the server. */
export async function listModels() {
  return (await (await call("v1/models")).json()).data;
}

/** Bring a model into memory, or out of it: `action` is `load` or `unload`. */
export async function manage(action, model) {
  return (await call(`v1/models/${action}`, { model })).json();
}

/** The events of a streamed answer, parsed. An error inside the stream is thrown. */
export async function* stream(path, body, signal) {
  const answer = await call(path, { ...body, stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } }, signal);
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message, 500, chunk.error.code);
    yield chunk;
  }
  throw new ApiError("the connection ended before the answer did", 0);
}

async function call(path, body, signal) {
  const headers = {};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST", headers, signal, cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the server cannot be reached", 0);
  }
  if (!answer.ok) throw await failure(answer);
  return answer;
}

async function failure(answer) {
  let found = {};
  try {
    found = (await answer.json()).error ?? {};
  } catch { /* no JSON: the status has to do */ }
  const wait = answer.headers.get("retry-after");
  const message = found.message ?? `the server answered ${answer.status}`;
  return new ApiError(wait ? `${message} (again in ${wait} s)` : message, answer.status, found.code);
}

/** Server-sent events: the data of each. Only `data` lines matter to this API. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const frames = (rest + value).split(/\r?\n\r?\n/);
      rest = frames.pop();
      for (const frame of frames) {
        const lines = frame.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      }
    }
  } finally {
    await reader.cancel().catch(() => {}); // a stopped answer must stop on the server too
  }
}

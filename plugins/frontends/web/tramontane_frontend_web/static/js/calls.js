// SPDX-License-Identifier: Apache-2.0
// The calls of tools in an answer: what was asked of which tool, what it said, and, while nothing has been said, fields
// in which the reader may say it.

import { copyButton, h, icon } from "./dom.js";

export class Calls {
  #drawn = "";

  constructor(give) {
    this.give = give;
    this.element = h("div", { class: "calls" });
  }

  /** Draw calls; `results` are what was said to them, `waiting` whether the reader may say it. */
  update(calls, results, waiting) {
    const drawn = JSON.stringify([calls, results, waiting]);
    if (drawn === this.#drawn) return; // fields that somebody types into stay
    this.#drawn = drawn;
    const fields = [];
    const blocks = calls.map((call, place) => {
      const result = results?.find((one) => one.id === call.id) ?? results?.[place];
      return block(call, result, waiting ? fields : null);
    });
    const send = waiting && h("button", { type: "button", class: "primary", onclick: () => this.give(
      calls.map((call, place) => ({ id: call.id, name: call.name, content: fields[place].value })),
    ) }, calls.length > 1 ? "Send results" : "Send result");
    this.element.replaceChildren(...blocks, ...(send ? [h("div", { class: "calls-row" }, send)] : []));
    this.element.hidden = !calls.length;
  }
}

function block(call, result, fields) {
  const state = result ? "answered" : fields ? "waits for a result" : "calling";
  const pretty = indented(call.arguments);
  const parts = [
    h("summary", {}, icon("tool"), h("span", { class: "call-name" }, call.name || "…"), h("span", { class: "call-state" }, state)),
    h("div", { class: "code" }, h("div", { class: "code-head" }, h("span", {}, "arguments"), copyButton("Copy arguments", () => pretty)),
      h("pre", { tabIndex: 0 }, h("code", {}, pretty))),
  ];
  if (result) {
    parts.push(h("div", { class: "code" }, h("div", { class: "code-head" }, h("span", {}, "result"), copyButton("Copy result", () => result.content)),
      h("pre", { tabIndex: 0 }, h("code", {}, result.content))));
  } else if (fields) {
    const field = h("textarea", { rows: 2, spellcheck: false, placeholder: "What the tool says" });
    fields.push(field);
    parts.push(h("label", { class: "field" }, h("span", {}, `Result of ${call.name}`), field));
  }
  return h("details", { class: "call", open: true }, ...parts);
}

function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // still arriving
  }
}

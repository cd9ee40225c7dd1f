// SPDX-License-Identifier: Apache-2.0
// The settings of the open conversation, the server's models, and the key.

import { key } from "./api.js";
import { $, h, iconButton } from "./dom.js";
import { NUMBERS, toolsFault } from "./settings.js";

const THINKING = [["", "The model’s default"], ["on", "On"], ["off", "Off"], ["low", "Low effort"], ["medium", "Medium effort"], ["high", "High effort"]];

export class Panel {
  #models = null;

  constructor(chat, { fault, newKey }) {
    this.chat = chat;
    this.fault = fault;
    this.newKey = newKey;
    this.element = $("panel");
    $("panel-open").addEventListener("click", () => this.toggle());
    chat.addEventListener("open", () => { if (!this.element.hidden) this.draw(); });
    chat.addEventListener("models", () => { if (!this.element.hidden) this.#models?.replaceChildren(...this.#modelRows()); });
  }

  toggle(shown = this.element.hidden) {
    this.element.hidden = !shown;
    $("panel-open").setAttribute("aria-expanded", String(shown));
    document.body.classList.toggle("panel-shown", shown);
    if (!shown) return $("panel-open").focus();
    this.draw();
    this.element.querySelector("button, textarea").focus();
    this.chat.loadModels().catch(() => {}); // the list is drawn again if it comes
  }

  draw() {
    const { settings } = this.chat.conversation;
    this.#models = h("ul", { class: "model-rows" }, ...this.#modelRows());
    this.element.replaceChildren(
      h("header", { class: "panel-head" }, h("h2", {}, "Settings"), iconButton("close", "Close settings", () => this.toggle(false))),
      h("div", { class: "panel-body" },
        section("Conversation", this.#text("system", "System prompt", { rows: 4, placeholder: "You are a helpful assistant." })),
        section("Sampling", h("div", { class: "numbers" }, ...NUMBERS.map((one) => this.#number(one))),
          this.#text("stop", "Stop texts, one a line", { rows: 2, spellcheck: false }),
          this.#thinking(settings.thinking ?? ""),
          h("p", { class: "small" }, "An empty field is the model’s own default.")),
        section("Tools", this.#tools()),
        section("Models", this.#models),
        section("Access", h("div", { class: "panel-row" },
          h("button", { type: "button", class: "quiet", onclick: () => this.newKey() }, key.get() ? "Change the API key" : "Give an API key"),
          key.get() ? h("button", { type: "button", class: "quiet", onclick: () => { key.forget(); this.draw(); } }, "Forget it") : null)),
        h("div", { class: "panel-row" }, h("button", { type: "button", class: "quiet", onclick: () => this.#reset() }, "Back to the defaults")),
      ));
  }

  #number([name, label, min, max, step]) {
    const value = this.chat.conversation.settings[name];
    const input = h("input", { type: "number", min, max, step: Number.isInteger(step) ? 1 : "any", inputMode: "decimal", placeholder: "default", value: value ?? "", data: { setting: name } });
    input.addEventListener("change", () => {
      const given = input.value === "" ? undefined : input.valueAsNumber;
      const wrong = given !== undefined && !input.checkValidity();
      input.setAttribute("aria-invalid", String(wrong));
      if (!wrong) this.chat.set({ [name]: given });
    });
    return h("label", { class: "field" }, h("span", {}, label), input);
  }

  #text(name, label, props) {
    const area = h("textarea", { value: this.chat.conversation.settings[name] ?? "", data: { setting: name }, ...props });
    area.addEventListener("input", () => this.chat.set({ [name]: area.value }));
    return h("label", { class: "field" }, h("span", {}, label), area);
  }

  #thinking(chosen) {
    const select = h("select", { data: { setting: "thinking" } }, ...THINKING.map(([value, label]) => h("option", { value, selected: value === chosen }, label)));
    select.addEventListener("change", () => this.chat.set({ thinking: select.value }));
    return h("label", { class: "field" }, h("span", {}, "Thinking"), select);
  }

  #tools() {
    const wrong = h("p", { class: "field-error", hidden: true });
    const area = h("textarea", { rows: 5, spellcheck: false, class: "code-field", data: { setting: "tools" }, value: this.chat.conversation.settings.tools ?? "",
      placeholder: '[{"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]' });
    area.addEventListener("input", () => {
      const fault = toolsFault(area.value);
      wrong.hidden = !fault;
      wrong.textContent = fault ?? "";
      area.setAttribute("aria-invalid", String(Boolean(fault)));
      if (!fault) this.chat.set({ tools: area.value });
    });
    return h("div", {}, h("label", { class: "field" }, h("span", {}, "Functions as JSON"), area), wrong,
      h("p", { class: "small" }, "What the model calls is shown in its answer, and you say what the tool replies."));
  }

  #modelRows() {
    return this.chat.models.map((one) => {
      const loaded = one.status === "ready";
      const act = h("button", { type: "button", class: "quiet", disabled: one.status === "loading", onclick: async () => {
        act.disabled = true;
        act.textContent = loaded ? "Unloading" : "Loading";
        try {
          await this.chat.manage(loaded ? "unload" : "load", one.id);
        } catch (error) {
          this.fault(error.message);
        }
      } }, loaded ? "Unload" : "Load");
      return h("li", { class: "model-row" }, h("span", { class: `dot ${one.status}` }),
        h("span", { class: "model-name" }, one.id, h("small", {}, [one.status, one.max_model_len ? `${one.max_model_len} tokens` : null, ...(one.aliases ?? [])].filter(Boolean).join(" · "))), act);
    });
  }

  #reset() {
    const { model } = this.chat.conversation.settings;
    this.chat.conversation.settings = {};
    this.chat.set({ model });
    this.draw();
  }
}

function section(title, ...children) {
  return h("section", {}, h("h3", {}, title), ...children);
}

// SPDX-License-Identifier: Apache-2.0
// One turn of the thread. It is made once and updated in place, so that focus, selections and open folds stay.

import { Calls } from "./calls.js";
import { copyButton, h, icon, iconButton } from "./dom.js";
import { count, figures, seconds } from "./figures.js";
import { Markdown } from "./markdown.js";
import { brothers } from "./tree.js";

const ENDS = { stopped: "Stopped", length: "Cut at the limit of tokens", error: "The server ended it with an error" };

export class TurnView {
  #editing = false;
  #touched = false;

  constructor(turn, chat) {
    this.turn = turn;
    this.chat = chat;
    this.foot = h("footer", { class: "turn-foot" });
    this.body = turn.role === "user" ? this.#user() : this.#assistant();
    this.element = h("article", { class: `turn ${turn.role}`, "aria-label": turn.role === "user" ? "You" : `Answer of ${turn.model ?? "the model"}`, data: { id: turn.id } }, this.body, this.foot);
  }

  /** Draw what has changed. `result` is the turn of tools below, `last` whether nothing follows. */
  update({ result = null, last = false } = {}) {
    if (this.turn.role === "assistant") this.#updateAssistant(result, last);
    this.#updateFoot(last);
  }

  // --- a question ---

  #user() {
    const files = (this.turn.attachments ?? []).map((file) => h("details", { class: "file" },
      h("summary", {}, icon("file"), file.name, h("span", { class: "file-size" }, `${count(file.text.length)} characters`)),
      h("pre", { tabIndex: 0 }, file.text)));
    return h("div", { class: "question" }, ...files, this.turn.content ? h("p", { class: "question-text" }, this.turn.content) : null);
  }

  // --- an answer ---

  #assistant() {
    this.thoughtText = new Markdown();
    this.thoughtLabel = h("span", {});
    this.thought = h("details", { class: "thought", hidden: true }, h("summary", { onclick: () => { this.#touched = true; } }, this.thoughtLabel), this.thoughtText.element);
    this.text = new Markdown();
    this.calls = new Calls((results) => this.chat.giveResults(this.turn, results));
    this.waiting = h("span", { class: "waiting", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
    this.fault = h("p", { class: "fault", role: "alert", hidden: true });
    return h("div", { class: "answer" }, this.thought, this.text.element, this.calls.element, this.waiting, this.fault);
  }

  #updateAssistant(result, last) {
    const { turn } = this;
    this.thought.hidden = !turn.reasoning;
    if (turn.reasoning) {
      const thinking = turn.streaming && !turn.content && !turn.calls?.length;
      this.thoughtLabel.textContent = thinking ? "Thinking" : turn.thought ? `Thought for ${seconds(turn.thought)}` : "Thought";
      this.thought.classList.toggle("running", thinking);
      if (!this.#touched) this.thought.open = thinking;
      this.thoughtText.update(turn.reasoning);
    }
    this.text.update(turn.content);
    this.calls.update(turn.calls ?? [], result?.results ?? null, Boolean(turn.calls?.length && last && !turn.streaming && !turn.error && turn.finish !== "stopped"));
    this.waiting.hidden = !turn.streaming || Boolean(turn.content || turn.reasoning || turn.calls?.length);
    this.element.classList.toggle("streaming", Boolean(turn.streaming));
    this.element.ariaBusy = String(Boolean(turn.streaming));
    const said = turn.error ?? "";
    if (this.fault.textContent !== said) this.fault.textContent = said;
    this.fault.hidden = !said;
  }

  // --- below ---

  #updateFoot(last) {
    if (this.#editing) return;
    const { turn, chat } = this;
    const ids = brothers(chat.conversation, turn);
    const drawn = JSON.stringify([ids, ids.indexOf(turn.id), turn.streaming, chat.busy, turn.finish, turn.content === ""]);
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      this.figures = h("span", { class: "figures" });
      this.foot.replaceChildren(...this.#siblings(ids), ...(turn.streaming ? [] : this.#actions()), this.figures);
    }
    const found = figures(turn.stats).map(([text, explained]) => h("span", { title: explained }, text));
    if (!turn.streaming && ENDS[turn.finish]) found.unshift(h("span", { class: "end" }, ENDS[turn.finish]));
    this.figures.replaceChildren(...found);
    this.element.classList.toggle("last", last);
  }

  #siblings(ids) {
    if (ids.length < 2) return [];
    const place = ids.indexOf(this.turn.id);
    const go = (steps) => () => this.chat.step(this.turn, steps);
    return [h("span", { class: "siblings", role: "group", "aria-label": `Version ${place + 1} of ${ids.length}` },
      iconButton("left", "Previous version", go(-1), { disabled: place === 0 || this.chat.busy }),
      h("span", { class: "place" }, `${place + 1}/${ids.length}`),
      iconButton("right", "Next version", go(1), { disabled: place === ids.length - 1 || this.chat.busy }))];
  }

  #actions() {
    const { turn, chat } = this;
    const disabled = chat.busy;
    const made = [copyButton(turn.role === "user" ? "Copy message" : "Copy answer", () => turn.content)];
    made.push(iconButton("pen", turn.role === "user" ? "Edit and ask again" : "Edit answer", () => this.edit(), { disabled }));
    if (turn.role === "assistant") made.push(iconButton("redo", "Another answer", () => chat.regenerate(turn), { disabled }));
    return [h("span", { class: "actions" }, ...made)];
  }

  /** Let the reader change the text; what comes of it is a branch of its own. */
  edit() {
    if (this.#editing || this.chat.busy) return;
    this.#editing = true;
    const field = h("textarea", { class: "edit-text", value: this.turn.content, "aria-label": "Edit the text" });
    const form = h("form", { class: "edit" }, field, h("div", { class: "edit-row" },
      h("button", { type: "button", class: "quiet", onclick: () => this.#endEdit() }, "Cancel"),
      h("button", { class: "primary" }, this.turn.role === "user" ? "Ask again" : "Keep as a version")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = field.value;
      this.#endEdit();
      if (text.trim() && (text !== this.turn.content || this.turn.role === "user")) this.chat.edit(this.turn, text);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.stopPropagation(); this.#endEdit(); }
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && this.turn.role === "user") { event.preventDefault(); form.requestSubmit(); }
    });
    this.body.hidden = this.foot.hidden = true;
    this.element.classList.add("editing");
    this.element.append(form);
    field.style.height = `${Math.min(field.scrollHeight + 4, innerHeight / 2)}px`;
    field.focus();
  }

  #endEdit() {
    this.#editing = false;
    this.element.querySelector(".edit")?.remove();
    this.element.classList.remove("editing");
    this.body.hidden = this.foot.hidden = false;
  }
}

// SPDX-License-Identifier: Apache-2.0
// The turns of the open conversation, and where it is scrolled to: an arriving answer takes the reader along unless they
// have scrolled away.

import { $, announce, h, icon } from "./dom.js";
import { path } from "./tree.js";
import { TurnView } from "./turn.js";

const NEAR_PX = 48;
const IDEAS = [
  ["Tell a story", "Tell me a short story about a cold wind that lost its way."],
  ["Explain something", "Explain how a transformer predicts the next word, in three short paragraphs."],
  ["Write code", "Write a Python function that merges two sorted lists, with a test."],
];

export class Thread {
  #views = new Map();
  #pending = new Set();
  #pinned = true;

  constructor(chat, use) {
    this.chat = chat;
    this.use = use;
    this.element = $("thread");
    this.inner = h("div", { class: "thread-inner" });
    this.element.append(this.inner);
    this.element.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    $("to-bottom").addEventListener("click", () => this.toBottom());
    chat.addEventListener("open", () => { this.#views.clear(); this.#pinned = true; this.draw(); });
    chat.addEventListener("thread", () => { this.#pinned = true; this.draw(); });
    chat.addEventListener("busy", () => this.#busy());
    chat.addEventListener("turn", ({ detail }) => this.#soon(detail));
    chat.addEventListener("models", () => { if (!path(chat.conversation).length) this.draw(); });
  }

  /** Draw every turn that is shown. */
  draw() {
    const turns = path(this.chat.conversation);
    if (!turns.length) {
      this.inner.replaceChildren(this.#welcome());
      return;
    }
    const views = turns.filter((turn) => turn.role !== "tool").map((turn) => this.#view(turn));
    const wanted = views.map((view) => view.element);
    for (const child of [...this.inner.children]) if (!wanted.includes(child)) child.remove();
    wanted.forEach((element, place) => {
      if (this.inner.children[place] !== element) this.inner.insertBefore(element, this.inner.children[place] ?? null);
    });
    for (const turn of turns) this.#update(turn, turns);
    this.#follow();
  }

  /** Let the reader edit their last question. */
  editLast() {
    const asked = path(this.chat.conversation).filter((turn) => turn.role === "user").at(-1);
    if (asked) this.#view(asked).edit();
    return Boolean(asked);
  }

  toBottom() {
    this.#pinned = true;
    this.#follow();
  }

  #view(turn) {
    if (!this.#views.has(turn.id)) this.#views.set(turn.id, new TurnView(turn, this.chat));
    return this.#views.get(turn.id);
  }

  #update(turn, turns) {
    if (turn.role === "tool") return;
    const place = turns.indexOf(turn);
    const next = turns[place + 1];
    this.#view(turn).update({ result: next?.role === "tool" ? next : null, last: place === turns.length - 1 });
  }

  /** Chunks may come faster than the screen is drawn. */
  #soon(turn) {
    if (!this.#pending.size) {
      requestAnimationFrame(() => {
        const turns = path(this.chat.conversation);
        for (const one of this.#pending) if (turns.includes(one)) this.#update(one, turns);
        this.#pending.clear();
        this.#follow();
      });
    }
    this.#pending.add(turn);
  }

  #busy() {
    const turns = path(this.chat.conversation);
    for (const turn of turns) this.#update(turn, turns);
    if (this.chat.busy) announce("The answer is arriving");
    else if (turns.length) announce(turns.at(-1).error ? `The answer failed: ${turns.at(-1).error}` : "The answer is complete");
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    this.#pinned = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    $("to-bottom").hidden = this.#pinned;
  }

  #follow() {
    if (this.#pinned) this.element.scrollTop = this.element.scrollHeight;
    this.#scrolled();
  }

  #welcome() {
    const { model } = this.chat;
    const base = model?.chats === false;
    const ideas = base ? [["Begin a story", "Once upon a time"]] : IDEAS;
    return h("section", { class: "welcome" },
      h("span", { class: "welcome-mark" }, icon("wind")),
      h("h1", {}, "What shall we talk about?"),
      h("p", {}, base ? `${model.id} has no chat template: it continues what you write.` : "Your words go to this server and nowhere else. Conversations stay in this browser."),
      h("div", { class: "ideas" }, ...ideas.map(([label, text]) => h("button", { type: "button", class: "idea", onclick: () => this.use(text) }, h("b", {}, label), h("span", {}, text)))));
  }
}

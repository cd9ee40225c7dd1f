// SPDX-License-Identifier: Apache-2.0
// What the page is doing: which conversation is open, which answers are arriving. Views listen to it and draw; it draws
// nothing. Events: "open" (another conversation), "thread" (turns came or went), "turn" (one changed; `detail`), "busy",
// "models", "fault" (`detail`).

import * as api from "./api.js";
import { fill } from "./answer.js";
import { keepSettings, lastSettings } from "./settings.js";
import { append, leaf, lineage, newConversation, parentOf, show, step } from "./tree.js";

const SAVE_EVERY_MS = 1000;

export class Chat extends EventTarget {
  models = [];
  #runs = new Map(); // conversation id -> {conversation, turn, controller}
  #saving = new Map(); // conversation id -> timer

  constructor(store) {
    super();
    this.store = store;
    this.conversation = newConversation(lastSettings());
  }

  // --- conversations ---

  /** Open a stored conversation, or a new one. */
  async open(id = null) {
    const running = this.#runs.get(id)?.conversation;
    const found = running ?? (id ? await this.store.get(id) : null);
    if (found && !running) settle(found);
    this.conversation = found ?? newConversation(lastSettings());
    this.#emit("open");
    this.#emit("busy");
    return found !== null && found !== undefined;
  }

  async rename(id, title) {
    const found = id === this.conversation.id ? this.conversation : await this.#find(id);
    if (!found) return;
    found.title = title.trim();
    await this.store.put(found);
  }

  async remove(id) {
    this.#runs.get(id)?.controller.abort();
    this.#runs.delete(id);
    clearTimeout(this.#saving.get(id));
    this.#saving.delete(id);
    await this.store.remove(id);
    if (id === this.conversation.id) await this.open();
  }

  /** Settings of the open conversation; new ones begin with what was last chosen. */
  set(changes) {
    Object.assign(this.conversation.settings, changes);
    const { system, ...kept } = this.conversation.settings;
    keepSettings(kept);
    if (this.conversation.roots.length) this.#saveSoon(this.conversation);
  }

  // --- models ---

  async loadModels() {
    this.models = await api.listModels();
    this.#emit("models");
  }

  /** The model that the open conversation asks. */
  get model() {
    const wanted = this.conversation.settings.model;
    return this.models.find((one) => one.id === wanted || one.aliases?.includes(wanted)) ?? this.models[0] ?? null;
  }

  async manage(action, id) {
    try {
      await api.manage(action, id);
    } finally {
      await this.loadModels();
    }
  }

  // --- turns ---

  get busy() {
    return this.#runs.has(this.conversation.id);
  }

  send(content, attachments = []) {
    const turn = { role: "user", content, ...(attachments.length ? { attachments } : {}) };
    return this.#answer(append(this.conversation, leaf(this.conversation), turn));
  }

  /** Another answer beside this one. */
  regenerate(turn) {
    return this.#answer(parentOf(this.conversation, turn));
  }

  /** The same turn with another text, as a branch of its own. A new question is answered. */
  edit(turn, content) {
    const { id, children, created, parent, ...same } = turn;
    const made = append(this.conversation, parentOf(this.conversation, turn), { ...structuredClone(same), content });
    if (made.role === "user") return this.#answer(made);
    delete made.stats;
    this.#changed();
    return null;
  }

  /** What the called tools said. */
  giveResults(turn, results) {
    return this.#answer(append(this.conversation, turn, { role: "tool", content: "", results }));
  }

  step(turn, steps) {
    step(this.conversation, turn, steps);
    this.#changed();
  }

  stop() {
    this.#runs.get(this.conversation.id)?.controller.abort();
  }

  async #answer(parent) {
    const { conversation, model } = this;
    if (this.#runs.has(conversation.id)) return;
    const turns = lineage(conversation, parent);
    const turn = append(conversation, parent, { role: "assistant", content: "", model: model?.id, streaming: true });
    show(conversation, turn);
    const controller = new AbortController();
    this.#runs.set(conversation.id, { conversation, turn, controller });
    this.#emit("busy");
    this.#changed();
    try {
      await fill(turn, turns, conversation.settings, model, controller.signal, () => {
        this.#saveSoon(conversation);
        if (conversation === this.conversation) this.#emit("turn", turn);
      });
    } catch (error) {
      turn.error = error.message;
      this.#emit("fault", error);
    } finally {
      this.#runs.delete(conversation.id);
      conversation.updated = Date.now();
      await this.#save(conversation);
      if (conversation === this.conversation) {
        this.#emit("turn", turn);
        this.#emit("busy");
      }
    }
  }

  // --- keeping ---

  /** Write what has not been written yet; the page is about to go. */
  flush() {
    for (const [id] of this.#saving) {
      const found = this.#runs.get(id)?.conversation ?? (id === this.conversation.id ? this.conversation : null);
      if (found) this.#save(found);
    }
  }

  #changed() {
    this.conversation.updated = Date.now();
    this.#save(this.conversation);
    this.#emit("thread");
  }

  #saveSoon(conversation) {
    if (this.#saving.has(conversation.id)) return;
    this.#saving.set(conversation.id, setTimeout(() => this.#save(conversation), SAVE_EVERY_MS));
  }

  async #save(conversation) {
    clearTimeout(this.#saving.get(conversation.id));
    this.#saving.delete(conversation.id);
    try {
      await this.store.put(conversation);
    } catch (error) {
      this.#emit("fault", new Error(`the conversation could not be kept: ${error.message}`));
    }
  }

  async #find(id) {
    return this.#runs.get(id)?.conversation ?? (await this.store.get(id));
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** Answers that were arriving when the page was closed. */
function settle(conversation) {
  for (const turn of Object.values(conversation.nodes)) {
    if (turn.streaming) Object.assign(turn, { streaming: false, finish: "stopped" });
  }
}

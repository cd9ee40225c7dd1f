// SPDX-License-Identifier: Apache-2.0
// Where the reader writes: text, attached files, send and stop.

import { $, h, icon, iconButton } from "./dom.js";
import { count } from "./figures.js";
import { leaf } from "./tree.js";

const MOST_BYTES = 2 * 2 ** 20;

export class Composer {
  #files = [];

  constructor(chat, thread, fault) {
    this.chat = chat;
    this.thread = thread;
    this.fault = fault;
    this.field = $("prompt");
    this.field.addEventListener("input", () => this.#fit());
    this.field.addEventListener("keydown", (event) => this.#key(event));
    this.field.addEventListener("paste", (event) => this.#take(event, event.clipboardData));
    $("composer").addEventListener("submit", (event) => { event.preventDefault(); this.#submit(); });
    $("attach").addEventListener("click", () => $("attach-file").click());
    $("attach-file").addEventListener("change", async ({ target }) => { await this.attach([...target.files]); target.value = ""; });
    $("main").addEventListener("dragover", (event) => { if (event.dataTransfer.types.includes("Files")) event.preventDefault(); });
    $("main").addEventListener("drop", (event) => this.#take(event, event.dataTransfer));
    for (const name of ["busy", "open", "models", "turn"]) chat.addEventListener(name, () => this.#state());
    this.#state();
  }

  /** Put a text in the field. */
  use(text) {
    this.field.value = text;
    this.#fit();
    this.field.focus();
  }

  /** Attach text files. */
  async attach(files) {
    for (const file of files) {
      const text = file.size > MOST_BYTES ? null : await read(file);
      if (text === null) {
        this.fault(file.size > MOST_BYTES ? `${file.name} is larger than 2 MiB` : `${file.name} is not a text file`);
      } else {
        this.#files.push({ name: file.name, text });
      }
    }
    this.#drawFiles();
  }

  #submit() {
    if (this.chat.busy) return this.chat.stop();
    const text = this.field.value.trim();
    if (!text && !this.#files.length) return null;
    const files = this.#files.splice(0);
    this.field.value = "";
    this.#fit();
    this.#drawFiles();
    this.fault(null);
    return this.chat.send(text, files);
  }

  #key(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      if (!this.chat.busy) this.#submit();
    } else if (event.key === "ArrowUp" && !this.field.value && !this.chat.busy && this.thread.editLast()) {
      event.preventDefault();
    }
  }

  #take(event, data) {
    if (!data?.files.length) return;
    event.preventDefault();
    this.attach([...data.files]);
  }

  #fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight, innerHeight * 0.4)}px`;
    this.#state();
  }

  #state() {
    const { busy } = this.chat;
    const send = $("send");
    const label = busy ? "Stop" : "Send";
    if (send.dataset.state !== label) {
      send.dataset.state = label;
      send.setAttribute("aria-label", label);
      send.title = busy ? "Stop (Esc)" : "Send (Enter)";
      send.replaceChildren(icon(busy ? "stop" : "send"));
    }
    send.disabled = !busy && !this.field.value.trim() && !this.#files.length;
    this.field.placeholder = this.chat.model ? `Message ${this.chat.model.id}` : "Message";
    this.#meter();
  }

  /** How much of the model's context the conversation takes. */
  #meter() {
    const most = this.chat.model?.max_model_len;
    const stats = leaf(this.chat.conversation)?.stats;
    const used = stats?.prompt ? stats.prompt + stats.tokens : 0;
    const meter = $("meter");
    meter.hidden = !most || !used;
    if (meter.hidden) return;
    meter.title = `${used} of the model’s ${most} tokens of context`;
    meter.replaceChildren(h("progress", { max: most, value: Math.min(used, most), "aria-label": "Context in use" }), `${count(used)} / ${count(most)}`);
  }

  #drawFiles() {
    $("attachments").replaceChildren(...this.#files.map((file) => h("li", {}, icon("file"), h("span", {}, file.name), h("small", {}, count(file.text.length)),
      iconButton("close", `Remove ${file.name}`, () => { this.#files.splice(this.#files.indexOf(file), 1); this.#drawFiles(); this.field.focus(); }))));
    this.#state();
  }
}

/** The text of a file, or null if it is none. */
async function read(file) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    return text.includes("\0") ? null : text;
  } catch {
    return null;
  }
}

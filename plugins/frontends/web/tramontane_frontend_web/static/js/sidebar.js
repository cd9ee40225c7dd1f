// SPDX-License-Identifier: Apache-2.0
// The list of conversations: search, open, rename, delete, export, import.

import { ask, menu } from "./dialogs.js";
import { $, download, h, iconButton } from "./dom.js";
import { day } from "./figures.js";
import { isConversation, newId, path, titleOf } from "./tree.js";

const NARROW = matchMedia("(max-width: 56rem)");

export class Sidebar {
  #listed = [];

  constructor(chat, fault) {
    this.chat = chat;
    this.fault = fault;
    $("new-chat").addEventListener("click", () => this.begin());
    $("search").addEventListener("input", () => this.draw());
    $("sidebar-open").addEventListener("click", () => this.toggle(true));
    $("sidebar-close").addEventListener("click", () => this.toggle(false));
    $("scrim").addEventListener("click", () => this.toggle(false));
    $("export-all").addEventListener("click", () => this.#exportAll());
    $("import").addEventListener("click", () => $("import-file").click());
    $("import-file").addEventListener("change", (event) => this.#import(event.target));
    NARROW.addEventListener("change", () => this.toggle(!NARROW.matches));
    this.toggle(!NARROW.matches);
    let waiting = null;
    chat.store.addEventListener("change", () => { waiting ??= setTimeout(() => { waiting = null; this.refresh(); }, 60); });
    chat.addEventListener("open", () => this.draw());
  }

  /** Whether it is a drawer over the thread. */
  get drawer() {
    return NARROW.matches && document.body.classList.contains("sidebar-shown");
  }

  toggle(shown) {
    const before = document.body.classList.contains("sidebar-shown");
    document.body.classList.toggle("sidebar-shown", shown);
    $("sidebar").inert = !shown;
    $("main").inert = shown && NARROW.matches;
    $("scrim").hidden = !(shown && NARROW.matches);
    $("sidebar-open").setAttribute("aria-expanded", String(shown));
    if (before !== shown && NARROW.matches) $(shown ? "sidebar-close" : "sidebar-open").focus();
  }

  async begin() {
    await this.open(null);
    $("prompt").focus();
  }

  async open(id) {
    await this.chat.open(id);
    if (NARROW.matches) this.toggle(false);
  }

  async refresh() {
    this.#listed = await this.chat.store.all();
    this.draw();
  }

  draw() {
    const wanted = $("search").value.trim().toLowerCase();
    const found = this.#listed.filter((one) => !wanted || matches(one, wanted));
    const drawn = [...grouped(found)].flatMap(([name, some], place) => [
      h("h2", { id: `day-${place}` }, name),
      h("ul", { "aria-labelledby": `day-${place}` }, ...some.map((one) => this.#entry(one))),
    ]);
    $("conversations").replaceChildren(...(drawn.length ? drawn : [h("p", { class: "nothing" }, wanted ? "Nothing found" : "No conversations yet")]));
  }

  #entry(one) {
    const current = one.id === this.chat.conversation.id;
    const options = iconButton("dots", `Options of ${titleOf(one)}`, () => menu(options, [
      ["Rename", () => this.#rename(one)],
      ["Export as Markdown", () => download(`${fileName(one)}.md`, asMarkdown(one), "text/markdown")],
      ["Export as JSON", () => download(`${fileName(one)}.json`, JSON.stringify([one], null, 1), "application/json")],
      ["Delete", () => this.#remove(one), true],
    ]), { "aria-haspopup": "menu", "aria-expanded": "false" });
    return h("li", { class: current ? "entry current" : "entry" },
      h("button", { type: "button", class: "entry-title", "aria-current": current ? "page" : null, title: titleOf(one), onclick: () => this.open(one.id) }, titleOf(one)),
      options);
  }

  async #rename(one) {
    const title = await ask({ title: "Rename the conversation", value: titleOf(one), yes: "Rename" });
    if (title !== null) await this.chat.rename(one.id, title);
  }

  async #remove(one) {
    const sure = await ask({ title: "Delete the conversation?", text: `“${titleOf(one)}” is kept nowhere else.`, yes: "Delete", danger: true });
    if (sure) await this.chat.remove(one.id);
  }

  async #exportAll() {
    const found = await this.chat.store.all();
    download(`tramontane-${new Date().toISOString().slice(0, 10)}.json`, JSON.stringify(found, null, 1), "application/json");
  }

  /** Take conversations from a file that this page wrote. One that is here already comes as a copy. */
  async #import(input) {
    try {
      const found = JSON.parse(await input.files[0].text());
      const listed = Array.isArray(found) ? found : [found];
      if (!listed.length || !listed.every(isConversation)) throw new Error("it holds no conversations of this page");
      for (const one of listed) {
        const taken = await this.chat.store.get(one.id);
        await this.chat.store.put(taken ? { ...one, id: newId() } : one);
      }
    } catch (error) {
      this.fault(`${input.files[0]?.name ?? "The file"} cannot be imported: ${error.message}`);
    } finally {
      input.value = "";
    }
  }
}

function matches(conversation, wanted) {
  return titleOf(conversation).toLowerCase().includes(wanted)
    || Object.values(conversation.nodes).some((turn) => turn.content.toLowerCase().includes(wanted));
}

function grouped(found) {
  const groups = new Map();
  for (const one of found) {
    const name = day(one.updated);
    groups.set(name, [...(groups.get(name) ?? []), one]);
  }
  return groups;
}

function fileName(conversation) {
  return titleOf(conversation).toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "chat";
}

function asMarkdown(conversation) {
  const parts = path(conversation).map((turn) => {
    if (turn.role === "tool") return turn.results.map((one) => `## Result of ${one.name}\n\n${fenced(one.content)}`).join("\n\n");
    const files = (turn.attachments ?? []).map((file) => `${file.name}:\n\n${fenced(file.text)}\n\n`).join("");
    const calls = (turn.calls ?? []).map((call) => `\n\nCalls ${call.name}:\n\n${fenced(call.arguments)}`).join("");
    return `## ${turn.role === "user" ? "You" : turn.model ?? "Answer"}\n\n${files}${turn.content}${calls}`;
  });
  const { system } = conversation.settings;
  return [`# ${titleOf(conversation)}`, ...(system ? [`> ${system.replaceAll("\n", "\n> ")}`] : []), ...parts].join("\n\n") + "\n";
}

function fenced(text) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}\n${text}\n${fence}`;
}

// SPDX-License-Identifier: Apache-2.0
// Markdown as it arrives. The text is split into its blocks, each time from its beginning; a block that has not changed keeps
// its nodes, so that only the last paragraph is parsed, sanitized and drawn anew, and what a reader has selected stays selected.

import { Marked, Renderer } from "../vendor/marked.esm.js";
import { copyButton, h } from "./dom.js";
import { sanitize } from "./sanitize.js";

const PLAIN = /^<\/?(?:br|sub|sup|kbd|b|i|u|s|em|strong|mark|small|details|summary)\s*\/?>$/i;

const marked = new Marked({
  gfm: true,
  renderer: {
    // HTML that a model writes outside a block of code is mostly meant to be read; a few plain elements are let through.
    html(token) {
      return PLAIN.test(token.text.trim()) ? token.text : escape(token.text);
    },
    checkbox({ checked }) {
      return checked ? "☑ " : "☐ ";
    },
    image(token) {
      const shown = Renderer.prototype.image.call(this, token);
      return /^data:/i.test(token.href) ? shown : `[image: ${escape(token.text || token.href)}]`;
    },
  },
});

function escape(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

export class Markdown {
  #blocks = [];

  constructor() {
    this.element = h("div", { class: "prose" });
  }

  /** Show a text. */
  update(text) {
    const tokens = marked.lexer(text);
    const { links } = tokens;
    const known = JSON.stringify(links);
    const wanted = tokens.filter((token) => token.type !== "space" && token.type !== "def");
    wanted.forEach((token, place) => {
      const old = this.#blocks[place];
      if (old?.raw === token.raw && old.links === known) return;
      const one = Object.assign([token], { links });
      const element = dressed(h("div", { class: "block" }, sanitize(marked.parser(one))));
      if (old) old.element.replaceWith(element);
      else this.element.append(element);
      this.#blocks[place] = { raw: token.raw, links: known, element };
    });
    for (const gone of this.#blocks.splice(wanted.length)) gone.element.remove();
  }
}

/** Blocks of code get their language and a button that copies, tables a frame that scrolls. */
function dressed(element) {
  for (const pre of element.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    const language = /language-(\S+)/.exec(code?.className ?? "")?.[1] ?? "text";
    const head = h("div", { class: "code-head" }, h("span", {}, language), copyButton("Copy code", () => (code ?? pre).textContent));
    const frame = h("div", { class: "code" }, head);
    pre.replaceWith(frame);
    pre.tabIndex = 0; // it scrolls, so keys must reach it
    frame.append(pre);
  }
  for (const table of element.querySelectorAll("table")) {
    const frame = h("div", { class: "table", tabIndex: 0 });
    table.replaceWith(frame);
    frame.append(table);
  }
  return element;
}

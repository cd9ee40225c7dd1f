// SPDX-License-Identifier: Apache-2.0
// Questions that must be answered before anything else, and menus.

import { key } from "./api.js";
import { $, h } from "./dom.js";

/** Ask for a text (`value` given) or a yes. Resolves to the text, true, or null. */
export function ask({ title, text = "", value = null, yes = "OK", danger = false }) {
  const dialog = $("ask-dialog");
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-text").hidden = !text;
  $("ask-field").hidden = value === null;
  const input = $("ask-input");
  input.value = value ?? "";
  input.setAttribute("aria-label", title);
  $("ask-yes").textContent = yes;
  $("ask-yes").classList.toggle("danger", danger);
  dialog.returnValue = "";
  dialog.showModal();
  (value === null ? $("ask-yes") : input).focus();
  if (value !== null) input.select();
  // Enter in the field means yes; the first button of a form would be taken otherwise.
  input.onkeydown = (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    dialog.close("ok");
  };
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue !== "ok" ? null : value === null ? true : input.value), { once: true });
  });
}

/** Ask for the API key until `works()` no longer refuses it, or the reader gives up. */
export async function askKey(works) {
  const dialog = $("key-dialog");
  let refused = false;
  for (;;) {
    $("key").value = "";
    $("key-error").hidden = !refused;
    $("key-error").textContent = "The server refused that key.";
    dialog.returnValue = "";
    if (!dialog.open) dialog.showModal();
    $("key").focus();
    $("key-cancel").onclick = () => dialog.close("cancel");
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue !== "ok") return false;
    key.set($("key").value.trim(), $("key-keep").checked);
    try {
      await works();
      return true;
    } catch (error) {
      if (error.status !== 401) throw error;
      key.forget();
      refused = true;
    }
  }
}

/** A menu below a button: pairs of a label and what it does; a third member marks what destroys. */
export function menu(button, entries) {
  const items = entries.map(([label, act, danger]) => h("button", { type: "button", role: "menuitem", class: danger ? "danger" : "", onclick: () => { box.hidePopover(); act(); } }, label));
  const box = h("div", { class: "menu", role: "menu", popover: "auto" }, ...items);
  document.body.append(box);
  box.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!steps) return;
    event.preventDefault();
    items[(items.indexOf(document.activeElement) + steps + items.length) % items.length].focus();
  });
  box.addEventListener("toggle", (event) => {
    if (event.newState === "closed") { box.remove(); button.setAttribute("aria-expanded", "false"); button.focus(); }
  });
  box.showPopover();
  button.setAttribute("aria-expanded", "true");
  const place = button.getBoundingClientRect();
  box.style.left = `${Math.max(8, Math.min(place.right - box.offsetWidth, innerWidth - box.offsetWidth - 8))}px`;
  box.style.top = `${Math.min(place.bottom + 4, innerHeight - box.offsetHeight - 8)}px`;
  items[0].focus();
}

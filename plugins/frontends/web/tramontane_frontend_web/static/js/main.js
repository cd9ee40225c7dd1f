// SPDX-License-Identifier: Apache-2.0
// Puts the page together: the model picker, the theme, the address, and keys that work everywhere.

import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { askKey } from "./dialogs.js";
import { $, announce, h } from "./dom.js";
import { Panel } from "./panel.js";
import { Sidebar } from "./sidebar.js";
import { Store } from "./store.js";
import { Thread } from "./thread.js";
import { titleOf } from "./tree.js";

const THEMES = { "": "System theme", light: "Light theme", dark: "Dark theme" };
const POLL_MS = 2000;

const store = await new Store().open();
const chat = new Chat(store);
const sidebar = new Sidebar(chat, fault);
const thread = new Thread(chat, (text) => composer.use(text));
const composer = new Composer(chat, thread, fault);
const panel = new Panel(chat, { fault, newKey });

/** Say what went wrong, or that nothing does any more. */
function fault(message) {
  $("note").hidden = !message;
  $("note").textContent = message ?? "";
}

// --- models ---

async function models() {
  try {
    await chat.loadModels();
    fault(null);
  } catch (error) {
    if (error.status === 401) return newKey();
    fault(`The models cannot be listed: ${error.message}`);
  }
  if (chat.models.some((one) => one.status === "loading")) setTimeout(models, POLL_MS);
  return null;
}

async function newKey() {
  try {
    if (!(await askKey(() => chat.loadModels()))) fault("Without an API key this server answers nothing.");
    else fault(null);
  } catch (error) {
    fault(error.message);
  }
  if (!panel.element.hidden) panel.draw();
}

function drawModels() {
  const { model } = chat;
  $("model").replaceChildren(...chat.models.map((one) => h("option", { value: one.id, selected: one === model }, one.id)));
  $("model").disabled = !chat.models.length;
  $("model-dot").className = `dot ${model?.status ?? ""}`;
  $("model-dot").title = model ? `${model.id}: ${model.status}` : "";
}

chat.addEventListener("models", drawModels);
$("model").addEventListener("change", ({ target }) => { chat.set({ model: target.value }); drawModels(); thread.draw(); });
chat.addEventListener("fault", ({ detail }) => { if (detail.status === 401) newKey(); });
chat.addEventListener("busy", () => {
  const { model } = chat;
  // The first answer of a model loads it; what it is then known to be is shown.
  if (!chat.busy && model && (model.status !== "ready" || model.max_model_len === null)) models();
});

// --- which conversation ---

chat.addEventListener("open", () => {
  drawModels();
  address();
});
chat.addEventListener("thread", address);
store.addEventListener("change", () => { document.title = `${titleOf(chat.conversation)} · Tramontane`; });

/** The address names the open conversation, so that reloading opens it again. */
function address() {
  const { conversation } = chat;
  const wanted = conversation.roots.length ? `#${conversation.id}` : "";
  document.title = conversation.roots.length ? `${titleOf(conversation)} · Tramontane` : "Tramontane";
  if (location.hash !== wanted) history.replaceState(null, "", wanted || location.pathname + location.search);
}

addEventListener("hashchange", () => {
  const id = location.hash.slice(1);
  if (id !== chat.conversation.id) chat.open(id || null);
});
addEventListener("pagehide", () => chat.flush());

// --- theme ---

function drawTheme() {
  const chosen = document.documentElement.dataset.theme ?? "";
  $("theme").title = THEMES[chosen];
  $("theme").setAttribute("aria-label", `Theme: ${THEMES[chosen]}`);
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "") + 1) % names.length];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem("theme", next);
  } catch { /* it lasts until the page is closed */ }
  drawTheme();
  announce(THEMES[next]);
});

// --- keys ---

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || document.querySelector("dialog[open], [popover]:popover-open")) return;
  const command = (event.ctrlKey || event.metaKey) && event.shiftKey;
  if (event.key === "Escape") {
    if (sidebar.drawer) sidebar.toggle(false);
    else if (chat.busy) chat.stop();
    else if (!panel.element.hidden) panel.toggle(false);
  } else if (command && event.key.toLowerCase() === "o") {
    event.preventDefault();
    sidebar.begin();
  }
});

drawTheme();
await chat.open(location.hash.slice(1) || null);
await Promise.all([sidebar.refresh(), models()]);
if (!store.lasting) fault("This browser keeps no data for the page: conversations last until it is closed.");
if (matchMedia("(pointer: fine)").matches) composer.field.focus();
document.documentElement.dataset.ready = "";

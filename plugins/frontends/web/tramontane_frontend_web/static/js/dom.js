// SPDX-License-Identifier: Apache-2.0
// Elements without markup: nothing here ever parses a string as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Keys of `props`: `on…` are listeners, `class`, `data`, known properties, else attributes. */
export function h(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (key === "data") Object.assign(made.dataset, value);
    else if (key in made && !key.includes("-")) made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** One of the drawings at the top of the page. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button that is a drawing. */
export function iconButton(name, label, onclick, props = {}) {
  return h("button", { type: "button", class: "icon-button small", title: label, "aria-label": label, onclick, ...props }, icon(name));
}

/** An element of the page itself. */
export function $(id) {
  return document.getElementById(id);
}

/** A button that copies what `text()` gives and says that it did. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    const done = await copy(text());
    button.replaceChildren(icon(done ? "check" : "close"));
    announce(done ? "Copied" : "Copying was refused by the browser");
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS and off this machine there is no clipboard API; the old way still works there.
    const area = h("textarea", { value: text, class: "hidden" });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Tell people who do not see the page. */
export function announce(text) {
  $("status").textContent = text;
}

/** Give the reader a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

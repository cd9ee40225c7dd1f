// SPDX-License-Identifier: Apache-2.0
// What a model says is a stranger's text. Markdown's HTML passes through here, and only harmless elements come out: no
// script, no style, no form, no frame, no address but http(s) and mailto, no image but one that is inlined.

import DOMPurify from "../vendor/purify.es.mjs";

const TAGS = (
  "p br hr h1 h2 h3 h4 h5 h6 strong em b i del s u sub sup kbd mark small code pre blockquote ul ol li "
  + "table thead tbody tr th td a img details summary"
).split(" ");
const ATTRIBUTES = ["href", "src", "alt", "title", "start", "align", "open", "class"];
const LINK = /^(?:https?:\/\/|mailto:)/i;
const INLINED = /^data:image\/(?:png|jpeg|gif|webp|avif);base64,[a-z0-9+/=\s]*$/i;

DOMPurify.addHook("uponSanitizeAttribute", (node, data) => {
  const { attrName: name, attrValue: value } = data;
  if (name === "class") data.keepAttr = node.nodeName === "CODE" && /^language-[\w.+#-]{1,40}$/.test(value);
  if (name === "href") data.keepAttr = node.nodeName === "A" && LINK.test(value.trim());
  if (name === "src") data.keepAttr = node.nodeName === "IMG" && INLINED.test(value);
});
DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName === "A" && node.hasAttribute("href")) {
    node.target = "_blank";
    node.rel = "noopener noreferrer nofollow";
  }
});

/** Harmless nodes of some HTML. */
export function sanitize(html) {
  const fragment = DOMPurify.sanitize(html, {
    ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ATTRIBUTES, ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const image of fragment.querySelectorAll("img:not([src])")) {
    image.replaceWith(`[image: ${image.alt || "not shown"}]`);
  }
  for (const dead of fragment.querySelectorAll("a:not([href])")) dead.replaceWith(...dead.childNodes);
  return fragment;
}

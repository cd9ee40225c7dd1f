// SPDX-License-Identifier: Apache-2.0
// A conversation is a tree of turns: editing or regenerating adds a sibling, nothing is overwritten. `chosen` says which
// child each turn shows. Plain data, so that a browser's database keeps it as it is; no view and no network here.

const ROOT = "";

/** An id that no other turn or conversation has. crypto.randomUUID is missing where a page has no TLS. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** An empty conversation. */
export function newConversation(settings) {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, settings: { ...settings }, nodes: {}, roots: [], chosen: {} };
}

/** The turns from the first to the last that are shown. */
export function path(conversation) {
  const found = [];
  for (let id = conversation.chosen[ROOT]; id; id = conversation.chosen[id]) found.push(conversation.nodes[id]);
  return found;
}

/** The last turn that is shown. */
export function leaf(conversation) {
  return path(conversation).at(-1) ?? null;
}

/** Add a turn below another (or at the beginning) and show it. */
export function append(conversation, parent, turn) {
  const node = { id: newId(), parent: parent?.id ?? null, children: [], created: Date.now(), ...turn };
  conversation.nodes[node.id] = node;
  brothers(conversation, node).push(node.id);
  return show(conversation, node);
}

/** The ids of a turn and of its siblings, the oldest first. */
export function brothers(conversation, node) {
  return node.parent ? conversation.nodes[node.parent].children : conversation.roots;
}

/** Let a turn be the one that is shown among its siblings. */
export function show(conversation, node) {
  conversation.chosen[node.parent ?? ROOT] = node.id;
  return node;
}

/** Show the sibling `step` places further on. */
export function step(conversation, node, steps) {
  const ids = brothers(conversation, node);
  const place = Math.min(ids.length - 1, Math.max(0, ids.indexOf(node.id) + steps));
  return show(conversation, conversation.nodes[ids[place]]);
}

/** The turn above. */
export function parentOf(conversation, node) {
  return node.parent ? conversation.nodes[node.parent] : null;
}

/** The turns from the first to this one, whatever is shown. */
export function lineage(conversation, node) {
  const found = [];
  for (let one = node; one; one = parentOf(conversation, one)) found.unshift(one);
  return found;
}

/** What the list calls a conversation. */
export function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const first = conversation.nodes[conversation.roots[0]];
  const text = (first?.content || first?.attachments?.[0]?.name || "").replace(/\s+/g, " ").trim();
  return text.length > 60 ? `${text.slice(0, 60)}…` : text || "New chat";
}

/** Whether something is a conversation that this page wrote. Imports are checked by it. */
export function isConversation(value) {
  if (!value || typeof value !== "object" || typeof value.id !== "string" || !Array.isArray(value.roots)) return false;
  const { nodes, chosen } = value;
  if (!nodes || typeof nodes !== "object" || !chosen || typeof chosen !== "object") return false;
  const known = (id) => typeof id === "string" && Object.hasOwn(nodes, id);
  const sound = Object.entries(nodes).every(([id, node]) => node && node.id === id && typeof node.content === "string"
    && ["user", "assistant", "tool"].includes(node.role) && Array.isArray(node.children) && node.children.every(known)
    && node.children.every((child) => nodes[child].parent === id)
    && (node.parent === null ? value.roots.includes(id) : known(node.parent) && nodes[node.parent].children.includes(id)));
  if (!sound || !value.roots.every((id) => known(id) && nodes[id].parent === null)) return false;
  // A cycle below a root is impossible: each node has one parent, that parent lists it, and roots have none.
  return Object.entries(chosen).every(([above, id]) => known(id) && (nodes[id].parent ?? ROOT) === above);
}

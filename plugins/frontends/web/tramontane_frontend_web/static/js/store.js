// SPDX-License-Identifier: Apache-2.0
// Conversations in the browser's own database. Without one (a private window of some browsers) they live until the page is
// closed, and the page says so.

import { isConversation } from "./tree.js";

const NAME = "tramontane", STORE = "conversations", VERSION = 1;

export class Store extends EventTarget {
  #database = null;
  #memory = new Map();
  #channel = "BroadcastChannel" in globalThis ? new BroadcastChannel(NAME) : null;

  /** Whether what is stored outlives the page. */
  get lasting() {
    return this.#database !== null;
  }

  async open() {
    try {
      const asked = indexedDB.open(NAME, VERSION);
      asked.onupgradeneeded = () => asked.result.createObjectStore(STORE, { keyPath: "id" });
      this.#database = await settled(asked);
      this.#database.onversionchange = () => this.#database.close();
    } catch {
      this.#database = null;
    }
    this.#channel?.addEventListener("message", () => this.dispatchEvent(new Event("change")));
    return this;
  }

  /** Every conversation, the last used first. */
  async all() {
    const found = this.#database ? await settled(this.#store("readonly").getAll()) : [...this.#memory.values()];
    return found.filter(isConversation).sort((a, b) => b.updated - a.updated);
  }

  async get(id) {
    const found = this.#database ? await settled(this.#store("readonly").get(id)) : this.#memory.get(id);
    return isConversation(found) ? found : null;
  }

  async put(conversation) {
    if (this.#database) await settled(this.#store("readwrite").put(conversation));
    else this.#memory.set(conversation.id, structuredClone(conversation));
    this.#tell();
  }

  async remove(id) {
    if (this.#database) await settled(this.#store("readwrite").delete(id));
    else this.#memory.delete(id);
    this.#tell();
  }

  #store(mode) {
    return this.#database.transaction(STORE, mode).objectStore(STORE);
  }

  #tell() {
    this.#channel?.postMessage("changed");
    this.dispatchEvent(new Event("change"));
  }
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

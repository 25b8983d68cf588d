// @ts-check
/** Where a tree's tab gets what the events do not tell: the journal, and texts that were cut. A page from a file has all. */

import { api } from "../lib/api.js";
import { SHOWN_CHARS } from "../lib/search-model.js";

/** @typedef {import("../lib/search-model.js").SearchModel} SearchModel */
/** @typedef {import("../lib/search-model.js").NodeView} NodeView */

const PAGE = 1000;

/** The journal's pages. @param {string} searchId @returns {(after: number|null) => Promise<import("./journal.js").Page>} */
export function journalOf(searchId) {
  const path = `search/${encodeURIComponent(searchId)}/journal?limit=500`;
  return (after) => api.get(after === null ? path : `${path}&after=${after}`);
}

/** Whether a text of the node may have been cut by an event: it is as long as they are let be. @param {NodeView} node */
export function mayBeCut(node) {
  return [node.text, node.stdout, node.stderr, node.answer ?? ""].some((text) => text.length >= SHOWN_CHARS);
}

/**
 * Load pages of the tree into the model, up to the one with the node; all of them without a node.
 * @param {SearchModel} model @param {string} searchId @param {string|null} id @param {AbortSignal} [signal]
 */
export async function loadWhole(model, searchId, id, signal) {
  const path = `search/${encodeURIComponent(searchId)}/tree?limit=${PAGE}`;
  /** @type {string|null} */
  let cursor = null;
  do {
    /** @type {{nodes: NodeView[], next: string|null}} */
    const page = await api.get(cursor === null ? path : `${path}&cursor=${encodeURIComponent(cursor)}`, { signal });
    model.loadTree([page]);
    if (id !== null && page.nodes.some((node) => node.id === id)) return;
    cursor = page.next;
  } while (cursor !== null);
}

// @ts-check
/**
 * The tree as one HTML file that shows it without a server: the modules that draw it here, and the search as JSON.
 *
 * The file asks nobody and holds no key. Its policy lets only its own script run, by a nonce that no model could know, and its
 * worker. Texts of the model are in it as data alone.
 */

import { SearchModel } from "../lib/search-model.js";
import { Journal } from "./journal.js";
import { bundle, escapeJson, escapeScript } from "./modules.js";
import { journalOf, loadWhole } from "./source.js";

/** The page's folder. */
const PAGE = new URL("../", import.meta.url);
const ENTRY = "tree/offline-start.js";
const STYLES = ["style/tokens.css", "style/base.css", "style/tree.css"];
const TIMEOUT_MS = 30_000;

/**
 * Make the file and hand it to the browser as a download. Raises what the API or the network say.
 * @param {SearchModel} model @param {string} searchId
 */
export async function saveOffline(model, searchId) {
  const data = await readSearch(model, searchId);
  const file = await makeFile(data);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([file], { type: "text/html" }));
  link.download = `ratchet-search-${searchId}.html`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), TIMEOUT_MS);
}

/**
 * All that the file shows. Read anew: what the page has may be cut, or older.
 * @param {SearchModel} model @param {string} searchId
 */
async function readSearch(model, searchId) {
  const whole = new SearchModel();
  await loadWhole(whole, searchId, null);
  const journal = new Journal();
  try {
    await journal.read(journalOf(searchId));
  } catch {
    // A tree without its journal is shown without a replay.
  }
  return { search: searchId, saved: new Date().toISOString(), result: model.result, nodes: [...whole.nodes.values()], tasks: journal.tasks };
}

/** The file. @param {unknown} data */
async function makeFile(data) {
  const script = await bundle(ENTRY, readAsset);
  const styles = await Promise.all(STYLES.map(readAsset));
  const nonce = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const policy = `default-src 'none'; script-src 'nonce-${nonce}'; style-src 'nonce-${nonce}'; worker-src blob:; img-src data:; base-uri 'none'; form-action 'none'`;
  return [
    "<!doctype html>",
    '<html lang="en"><head><meta charset="utf-8">',
    `<meta http-equiv="Content-Security-Policy" content="${policy}">`,
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    "<title>Search tree · Ratchet</title>",
    ...styles.map((style) => `<style nonce="${nonce}">${style}</style>`),
    '</head><body><div id="app"></div>',
    `<script type="application/json" id="search-data">${escapeJson(data)}</script>`,
    `<script type="module" nonce="${nonce}">${escapeScript(script)}</script>`,
    "</body></html>",
  ].join("\n");
}

/** @param {string} path In the page's folder. */
async function readAsset(path) {
  const response = await fetch(new URL(path, PAGE), { signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) throw new Error(`The page's file ${path} could not be read (${response.status}).`);
  return response.text();
}

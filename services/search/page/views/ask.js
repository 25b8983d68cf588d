// @ts-check
/** Begin a search: the problem, and how it is to be searched. */
import { html } from "../vendor/preact-htm.js";
import { useTitle } from "../lib/ui.js";

export function Ask() {
  useTitle("Ask");
  return html`<div class="view"><h1>Ask</h1></div>`;
}

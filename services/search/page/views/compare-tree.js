// @ts-check
/** The tree of one of two compared searches, on a small canvas. */
import { html } from "../vendor/preact-htm.js";
import { navigate } from "../lib/router.js";
import { Canvas } from "../tree/canvas.js";
import { useExplorer } from "../tree/use-explorer.js";

/** Larger trees are not loaded for this: they have a view of their own. */
const NOTHING = "The tree is too large to be shown small, or has no step yet.";

/** @param {{model: import("../lib/search-model.js").SearchModel, searchId: string, name: string}} props */
export function SmallTree({ model, searchId, name }) {
  const explorer = useExplorer(model);
  if (model.nodes.size < 2) return html`<p class="muted">${NOTHING}</p>`;
  const open = (/** @type {string} */ id) => navigate(`/search/${searchId}/node/${encodeURIComponent(id)}`);
  return html`<div class="tree compare-tree" role="group" aria-label=${`Tree of ${name}`}><${Canvas} explorer=${explorer} onSelect=${open} /></div>`;
}

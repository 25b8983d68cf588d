// @ts-check
/** What colours, sizes and marks of the map mean. */

import { html } from "../vendor/preact-htm.js";
import { Details } from "../lib/ui.js";
import { SCORE_COLOURS } from "./palette.js";

export function Legend() {
  const places = Array.from({ length: SCORE_COLOURS }, (_, place) => place);
  return html`<div class="tree-legend">
    <${Details} summary="Legend">
      <dl>
        <dt><span class="tree-scale" aria-hidden="true">${places.map((place) => html`<i class=${`prm-${place}`}></i>`)}</span></dt><dd>PRM score, 0 to 1</dd>
        <dt><i class="tree-dot none" aria-hidden="true"></i></dt><dd>no score</dd>
        <dt><i class="tree-dot left" aria-hidden="true"></i></dt><dd>left by the gate</dd>
        <dt><b class="tree-cross" aria-hidden="true">×</b></dt><dd>did not run</dd>
        <dt><i class="tree-dot answer" aria-hidden="true"></i></dt><dd>the answer, and the way to it</dd>
        <dt><i class="tree-dot selected" aria-hidden="true"></i></dt><dd>selected, and the way to it</dd>
        <dt><span aria-hidden="true">● •</span></dt><dd>larger: more visits</dd>
      </dl>
    <//>
  </div>`;
}

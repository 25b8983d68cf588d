// @ts-check
/** Find and filter: what is not meant is dimmed. */

import { html, useState } from "../vendor/preact-htm.js";
import { number as count } from "../lib/format.js";
import { Button } from "../lib/ui.js";
import { NO_FILTER, isActive } from "./filters.js";
import { useShown } from "./use-explorer.js";

/** @param {{explorer: import("./explorer.js").Explorer}} props */
export function FilterBar({ explorer }) {
  useShown(explorer);
  const { filter, matches } = explorer;
  // As it was typed: "0." is on its way to a number.
  const [typed, setTyped] = useState("");
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter") explorer.selectMatch(event.shiftKey ? -1 : 1);
    else if (event.key === "Escape" && filter.text !== "") explorer.setFilter({ text: "" });
    else return;
    event.preventDefault();
  };
  const below = (/** @type {any} */ event) => {
    const value = event.currentTarget.valueAsNumber;
    setTyped(event.currentTarget.value);
    explorer.setFilter({ below: Number.isFinite(value) ? Math.max(0, Math.min(1, value)) : null });
  };
  const clear = () => {
    setTyped("");
    explorer.setFilter(NO_FILTER);
  };
  const at = matches ? matches.numbers.indexOf(explorer.selected) + 1 : 0;
  return html`<div class="tree-filters" role="search" aria-label="Find and filter nodes">
    <input class="tree-find" type="search" placeholder="Find in code, output, answers" aria-label="Find nodes by text; Enter goes to the next" value=${filter.text} onInput=${(/** @type {any} */ event) => explorer.setFilter({ text: event.currentTarget.value })} onKeyDown=${onKey} />
    <${Toggle} on=${filter.failed} onClick=${() => explorer.setFilter({ failed: !filter.failed })}>Failed<//>
    <${Toggle} on=${filter.answered} onClick=${() => explorer.setFilter({ answered: !filter.answered })}>With answer<//>
    <label class="tree-below">PRM below <input type="number" min="0" max="1" step="0.05" placeholder="0.5" value=${typed} onInput=${below} /></label>
    ${isActive(filter) && html`<span class="tree-found row">
      <span role="status">${matches && matches.numbers.length > 0 ? `${at > 0 ? `${count(at)} of ` : ""}${count(matches.numbers.length)} found` : "None found"}</span>
      <${Button} small aria-label="Previous node that was found" disabled=${!matches?.numbers.length} onClick=${() => explorer.selectMatch(-1)}>↑<//>
      <${Button} small aria-label="Next node that was found" disabled=${!matches?.numbers.length} onClick=${() => explorer.selectMatch(1)}>↓<//>
      <${Button} small kind="quiet" onClick=${clear}>Clear<//>
    </span>`}
  </div>`;
}

/** @param {{on: boolean, onClick: () => void, children?: any}} props */
function Toggle({ on, onClick, children }) {
  return html`<${Button} small class="tree-toggle" aria-pressed=${String(on)} onClick=${onClick}>${children}<//>`;
}

// @ts-check
/** What an offline file runs: the tree's tab over the data that stands in the file. */

import { html, render } from "../vendor/preact-htm.js";
import { SEARCH_STATES, dateTime } from "../lib/format.js";
import { createSearchModel } from "../lib/search-model.js";
import { StateBadge } from "../lib/ui.js";
import { Journal } from "./journal.js";
import { Tree } from "./tree-tab.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = () => void (document.documentElement.dataset.theme = dark.matches ? "dark" : "light");
dark.addEventListener("change", colour);
colour();

const data = JSON.parse(document.getElementById("search-data")?.textContent ?? "{}");
const model = createSearchModel();
model.loadTree([{ nodes: data.nodes }]);
if (data.result) model.setResult(data.result);
const journal = new Journal();
journal.add(data.tasks);
document.title = `${data.result?.problem.slice(0, 60) ?? "Search tree"} · Ratchet`;
const nodeId = /^#\/node\/([\w-]+)$/.exec(location.hash)?.[1] ?? null;

render(
  html`<main class="view wide stack">
    <h1>${data.result?.problem ?? "Search tree"}</h1>
    <p class="row">
      ${data.result && html`<${StateBadge} state=${data.result.state} />`}
      ${data.result?.answer && html`<span>Answer <strong>${data.result.answer}</strong></span>`}
      <span class="muted">Saved ${dateTime(data.saved)} · ${SEARCH_STATES[data.result?.state]?.label === "Running" ? "the search was still running" : `search ${data.search}`}</span>
    </p>
    <${Tree} model=${model} searchId=${data.search} nodeId=${nodeId} journal=${journal} offline />
  </main>`,
  /** @type {HTMLElement} */ (document.getElementById("app")),
);

// @ts-check
/** Why a node was chosen: the terms of the selection rule, and how the node came to be. */

import { html } from "../vendor/preact-htm.js";
import { number as count, score } from "../lib/format.js";
import { Details, ErrorBox, Spinner } from "../lib/ui.js";
import { firstLine } from "./shown-tree.js";

/** @typedef {import("./explorer.js").Explorer} Explorer */
/** @typedef {import("./journal.js").Chosen} Chosen */
/** @typedef {import("./journal.js").Task} Task */
/** @typedef {{loading: boolean, error: unknown, reload: () => void}} Reading */

/** Earlier choices that are listed. */
const MOST_CHOICES = 50;

/** Names of the terms, by rule. @type {Record<string, {estimate: string, score: string}>} */
const TERMS = {
  uct: { estimate: "Estimate", score: "Estimate + exploration" },
  share: { estimate: "PRM score", score: "Draws" },
};
const OTHER_TERMS = { estimate: "PRM score", score: "Compared" };

/** @param {{explorer: Explorer, id: string, reading: Reading, onSelect: (id: string) => void}} props */
export function Why({ explorer, id, reading, onSelect }) {
  const { journal } = explorer;
  const maker = journal.makerOf(id);
  const choices = journal.choicesOf(id);
  const nothing = maker === null && choices.length === 0;
  return html`<section class="stack tight tree-why" aria-label="Why it was chosen">
    <h3>Why it was chosen</h3>
    ${nothing && reading.loading && html`<${Spinner} label="Reading the journal" />`}
    ${nothing && reading.error !== null && html`<${ErrorBox} title="The journal could not be read" error=${reading.error} retry=${reading.reload} />`}
    ${nothing && !reading.loading && reading.error === null && html`<p class="muted">${untold(explorer, id)}</p>`}
    ${choices.length > 0 && html`<${Latest} explorer=${explorer} id=${id} choices=${choices} onSelect=${onSelect} />`}
    ${choices.length === 0 && maker !== null && html`<p>Selection has not led to it so far: its visits are those of the rollouts that made it.</p>`}
    ${maker !== null && html`<${Origin} explorer=${explorer} task=${maker} onSelect=${onSelect} />`}
  </section>`;
}

/** @param {Explorer} explorer @param {string} id */
function untold({ journal, model }, id) {
  if (id === "root") return "The problem itself: every solution begins here.";
  if (journal.tasks.length > 0) return "No task of the journal made it: it came with the branch that this search began from, or after the journal was read.";
  return model.over ? "This search keeps no journal of its tasks." : "No task has been written down yet.";
}

/** The last time that it was taken, and those before. @param {{explorer: Explorer, id: string, choices: readonly Chosen[], onSelect: (id: string) => void}} props */
function Latest({ explorer, id, choices, onSelect }) {
  const { choice, task } = choices[choices.length - 1];
  const terms = TERMS[task.why?.rule ?? ""] ?? OTHER_TERMS;
  const other = choice.runner_up;
  const through = task.node !== id && html`, on the way to <${NodeLink} explorer=${explorer} id=${task.node} onSelect=${onSelect} />`;
  return html`<p>Task ${count(task.number)} took it last${through}. ${!through && task.why?.words}</p>
    <dl class="terms">
      <dt>${terms.estimate}</dt><dd class="num-left">${score(choice.estimate)}</dd>
      ${choice.explore !== null && html`<dt>Exploration</dt><dd>+ ${score(choice.explore)}</dd>`}
      <dt>${terms.score}</dt><dd>${choice.score === null ? "never visited: comes first" : score(choice.score)}</dd>
      ${choice.of !== undefined && html`<dt>Place</dt><dd>${count(choice.rank)} of ${count(choice.of)}</dd>`}
      <dt>Next best</dt><dd>${other === null ? "none" : html`<${NodeLink} explorer=${explorer} id=${other.node} onSelect=${onSelect} /> ${other.score === null ? "never visited" : score(other.score)}`}</dd>
    </dl>
    ${choices.length > 1 && html`<${Details} summary=${`Taken ${count(choices.length)} times`}><${Earlier} choices=${choices} /><//>`}`;
}

/** @param {{choices: readonly Chosen[]}} props */
function Earlier({ choices }) {
  const shown = choices.slice(-MOST_CHOICES).reverse();
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Each time it was taken"><table class="tree-choices">
    <thead><tr><th class="num">Task</th><th class="num">Estimate</th><th class="num">Explore</th><th class="num">Score</th><th class="num">Next best</th></tr></thead>
    <tbody>${shown.map(({ choice, task }) => html`<tr key=${task.order}>
      <td class="num">${count(task.number)}</td><td class="num">${score(choice.estimate)}</td><td class="num">${score(choice.explore)}</td>
      <td class="num">${choice.score === null ? "new" : score(choice.score)}</td><td class="num">${choice.runner_up ? (choice.runner_up.score === null ? "new" : score(choice.runner_up.score)) : "–"}</td>
    </tr>`)}</tbody>
  </table>${choices.length > shown.length && html`<p class="muted">The last ${count(shown.length)} are shown.</p>`}</div>`;
}

/** The task that made it. @param {{explorer: Explorer, task: Task, onSelect: (id: string) => void}} props */
function Origin({ explorer, task, onSelect }) {
  return html`<p class="muted">Made by task ${count(task.number)}, which began at ${task.node === "root" ? "the problem" : html`<${NodeLink} explorer=${explorer} id=${task.node} onSelect=${onSelect} />`}.${task.why ? ` ${task.why.words}` : " Why it began there was not written down."}</p>`;
}

/** @param {{explorer: Explorer, id: string, onSelect: (id: string) => void}} props */
export function NodeLink({ explorer, id, onSelect }) {
  const number = explorer.tree.numberOf(id);
  const text = number === 0 ? "Problem" : number < 0 ? id : firstLine(explorer.tree.nodes[number].text) || id;
  return html`<button type="button" class="tree-link mono" title=${text} onClick=${() => onSelect(id)}>${text.length > 32 ? `${text.slice(0, 31)}…` : text}</button>`;
}

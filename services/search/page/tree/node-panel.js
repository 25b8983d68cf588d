// @ts-check
/** One node: its code, what it printed, what the search thinks of it, and why it was chosen. */

import { html, useEffect, useState } from "../vendor/preact-htm.js";
import { duration, number as count, score } from "../lib/format.js";
import { PythonCode } from "../lib/python-code.js";
import { Badge, Button, Code, CopyButton, Empty, ErrorBox, Spinner } from "../lib/ui.js";
import { NODE_STATES } from "./node-states.js";
import { loadWhole, mayBeCut } from "./source.js";
import { useShown } from "./use-explorer.js";
import { NodeLink, Why } from "./why.js";

/** @typedef {import("./explorer.js").Explorer} Explorer */
/** @typedef {import("../lib/search-model.js").NodeView} NodeView */

/** What the sandbox says of a step, in words. @type {Record<string, string>} */
const STATUSES = {
  ok: "ran to its end",
  error: "did not compile, or raised an error",
  limit: "was stopped at a limit",
  killed: "its process ended before the step did",
  not_run: "was not run, as an earlier step failed",
};

/** @param {{explorer: Explorer, searchId: string, offline: boolean, reading: import("./why.js").Reading, onSelect: (id: string) => void}} props */
export function NodePanel({ explorer, searchId, offline, reading, onSelect }) {
  useShown(explorer);
  const number = explorer.selected;
  if (number < 0) {
    return html`<${Empty} title="No such node"><p>${explorer.model.over ? "The tree has no node of this id." : "It is not there yet."}</p><${Button} onClick=${() => onSelect("root")}>Go to the problem<//><//>`;
  }
  const node = explorer.tree.nodes[number];
  const path = explorer.tree.pathTo(number).slice(0, -1);
  return html`<div class="tree-node stack">
    <${Head} explorer=${explorer} node=${node} searchId=${searchId} offline=${offline} />
    ${path.length > 1 && html`<nav aria-label="Steps before this one" class="tree-path">${path.map((each) => html`<${NodeLink} key=${each} explorer=${explorer} id=${explorer.tree.nodes[each].id} onSelect=${onSelect} />`)}</nav>`}
    ${number === 0 ? html`<${Problem} explorer=${explorer} />` : html`<${Step} explorer=${explorer} node=${node} searchId=${searchId} offline=${offline} />`}
    <${Facts} explorer=${explorer} node=${node} />
    <${Why} explorer=${explorer} id=${node.id} reading=${reading} onSelect=${onSelect} />
  </div>`;
}

/** @param {{explorer: Explorer, node: NodeView, searchId: string, offline: boolean}} props */
function Head({ explorer, node, searchId, offline }) {
  const root = explorer.tree.numberOf(node.id) === 0;
  const state = NODE_STATES[node.state];
  const link = `${location.href.split("#", 1)[0]}#/search/${encodeURIComponent(searchId)}/node/${encodeURIComponent(node.id)}`;
  return html`<div class="stack tight">
    <div class="row between">
      <h2>${root ? "Problem" : `Step ${explorer.tree.depths[explorer.tree.numberOf(node.id)]}`}</h2>
      ${!root && html`<${Badge} tone=${state.tone} dot title=${state.what}>${state.label}<//>`}
    </div>
    ${!root && html`<p class="muted">${state.what}${node.status && node.status !== "ok" ? ` It ${STATUSES[node.status] ?? node.status}.` : ""}${node.ended_by ? ` Nothing follows: ${node.ended_by}.` : ""}</p>`}
    ${!offline && html`<div class="row">
      <${Branch} explorer=${explorer} node=${node} />
      <${CopyButton} text=${link} label="Copy a link to this node" />
    </div>`}
  </div>`;
}

/** The dialog is loaded when it is asked for. @param {{explorer: Explorer, node: NodeView}} props */
function Branch({ explorer, node }) {
  const [dialog, setDialog] = useState(/** @type {{component: any}|null} */ (null));
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const search = explorer.model.result;
  useEffect(() => setDialog(null), [node.id]);
  const open = async () => {
    setError(null);
    try {
      const { BranchDialog } = await import("../views/branch.js");
      setDialog({ component: BranchDialog });
    } catch (failure) {
      setError(failure);
    }
  };
  return html`<${Button} small kind="primary" disabled=${search === null} onClick=${open}>Branch from here<//>
    ${error !== null && html`<${ErrorBox} title="Branching could not be loaded" error=${error} retry=${open} />`}
    ${dialog && html`<${dialog.component} search=${search} node=${node} onClose=${() => setDialog(null)} />`}`;
}

/** @param {{explorer: Explorer}} props */
function Problem({ explorer }) {
  return html`<p class="wrap">${explorer.model.result?.problem}</p>`;
}

/** @param {{explorer: Explorer, node: NodeView, searchId: string, offline: boolean}} props */
function Step({ explorer, node, searchId, offline }) {
  const whole = useWhole(explorer, node, searchId, offline);
  return html`<section class="stack tight" aria-label="Step">
    <div class="code copies"><pre tabindex="0" role="region" aria-label="Code of the step"><${PythonCode} text=${node.text} /></pre><${CopyButton} text=${node.text} label="Copy the code" /></div>
    ${whole.loading && html`<${Spinner} label="Loading the whole text" />`}
    ${whole.error !== null && html`<${ErrorBox} title="The whole text could not be loaded" error=${whole.error} retry=${whole.retry} />`}
    ${node.answer !== null && html`<p><span class="muted">Answer</span> <strong class="wrap">${node.answer}</strong></p>`}
    ${node.stdout !== "" && html`<h3>Output</h3><${Code} text=${node.stdout} label="the output" wrap copy=${false} />`}
    ${node.stderr !== "" && html`<h3>Errors</h3><${Code} text=${node.stderr} label="the errors" wrap copy=${false} />`}
    ${node.stdout === "" && node.stderr === "" && html`<p class="muted">It printed nothing.</p>`}
  </section>`;
}

/** @param {{explorer: Explorer, node: NodeView}} props */
function Facts({ explorer, node }) {
  const number = explorer.tree.numberOf(node.id);
  const { visits, q } = explorer.countsOf(number);
  const then = explorer.replay === null ? "" : " (at this moment)";
  return html`<dl class="terms tree-facts">
    ${number > 0 && html`<dt>PRM score</dt><dd>${score(node.prm_score)}</dd>`}
    <dt title="How often the search went through it">Visits${then}</dt><dd>${count(visits)}</dd>
    <dt title="Mean value of what came of it, from −1 (no answer) to 1">Q${then}</dt><dd>${visits > 0 ? score(q) : "–"}</dd>
    ${number > 0 && html`
      <dt title="Mean log-probability of the step under the policy">Prior</dt><dd>${score(node.prior)} nats a token (${score(Math.exp(node.prior))})</dd>
      <dt>Tokens</dt><dd>${count(node.tokens)}</dd>
      <dt>Time in the sandbox</dt><dd>${duration(node.seconds)}</dd>
      <dt>Id</dt><dd><code>${node.id}</code></dd>`}
    <dt>Children</dt><dd>${count(explorer.tree.children[number].filter((each) => explorer.isShown(each)).length)}</dd>
  </dl>`;
}

/** Load the node's texts whole, where an event may have cut them. @param {Explorer} explorer @param {NodeView} node
 * @param {string} searchId @param {boolean} offline */
function useWhole(explorer, node, searchId, offline) {
  const [state, setState] = useState({ loading: false, error: /** @type {unknown} */ (null) });
  const [turn, setTurn] = useState(0);
  const cut = !offline && mayBeCut(node);
  useEffect(() => {
    setState({ loading: cut, error: null });
    if (!cut) return;
    const left = new AbortController();
    const done = (/** @type {unknown} */ error) => left.signal.aborted || setState({ loading: false, error });
    loadWhole(explorer.model, searchId, node.id, left.signal).then(() => done(null), done);
    return () => left.abort();
  }, [node.id, cut, turn]);
  return { ...state, retry: () => setTurn(turn + 1) };
}

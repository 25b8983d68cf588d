// @ts-check
/** One version: what it is, how it measured, and the way from it down to its data and the base. */
import { html, useState } from "../vendor/preact-htm.js";
import { AdminError } from "./admin.js";
import { api } from "./api.js";
import { dateTime, number, percent } from "./format.js";
import { modelPath, modelUrl } from "./rounds.js";
import { MODEL_STATES, PromoteDialog } from "./serving.js";
import { Badge, Button, Code, Details, Spinner, useLoaded } from "./ui.js";

/** @typedef {import("./serving.js").Model} Model */
/** @typedef {import("./serving.js").Pair} Pair */
/** @typedef {{model: Model, dataset: {id: string, name: string, round: string|null, uri: string, sha256: string, rows: number}|null}} Ancestor */

/** @param {{version: string, pairs: Pair[], onChanged: () => void}} props */
export function ModelDetail({ version, pairs, onChanged }) {
  const { data, error, reload } = useLoaded((signal) => api.get(`${modelUrl(version)}/lineage`, { signal }), [version, pairs[0]?.id ?? 0]);
  const calibrations = useLoaded((signal) => api.get("/calibrations", { signal }), []);
  const choices = useLoaded((signal) => api.get("/strategies", { signal }), []);
  const [asked, setAsked] = useState(false);
  if (error !== null) return html`<${AdminError} error=${error} retry=${reload} />`;
  if (data === null) return html`<${Spinner} label="Loading the version" />`;
  /** @type {Ancestor[]} */
  const versions = data.versions;
  const model = /** @type {Ancestor} */ (versions[0]).model;
  const of = (/** @type {any} */ each) => each.policy === version || each.prm === version;
  return html`<div class="stack">
    <section class="panel stack tight" aria-label="The version">
      <div class="row between"><span class="row"><${Badge} tone=${MODEL_STATES[model.state]?.tone}>${MODEL_STATES[model.state]?.label ?? model.state}<//> ${model.kind === "prm" ? "PRM" : "Policy"}</span>${(model.state === "candidate" || model.state === "retired") && html`<${Button} kind="primary" onClick=${() => setAsked(true)}>Serve<//>`}</div>
      <dl class="terms"><dt>Made</dt><dd>${dateTime(model.created_at)}</dd><dt>Weights</dt><dd class="version">${model.uri}</dd><dt>SHA-256</dt><dd class="version">${model.sha256}</dd></dl>
      ${Object.keys(model.metrics).length > 0 && html`<${Details} summary="Figures that were registered with it"><${Code} text=${JSON.stringify(model.metrics, null, 2)} label="figures" /><//>`}
    </section>
    <section class="panel stack tight" aria-label="Where it comes from">
      <h2>Where it comes from</h2>
      <p class="muted small">From this version down to the base, with the data that each was trained on.</p>
      <ol class="lineage">${versions.map((each, place) => html`<${AncestorItem} key=${each.model.version} ancestor=${each} first=${place === 0} />`)}</ol>
    </section>
    <${Calibrations} found=${(calibrations.data?.calibrations ?? []).filter(of)} choices=${(choices.data?.choices ?? []).filter(of)} />
    ${asked && html`<${PromoteDialog} model=${model} pairs=${pairs} onChanged=${onChanged} onClose=${() => setAsked(false)} />`}
  </div>`;
}

/** @param {{ancestor: Ancestor, first: boolean}} props */
function AncestorItem({ ancestor, first }) {
  const { model, dataset } = ancestor;
  return html`<li class="stack tight">
    <span class="row"><span class="version">${first ? model.version : html`<a href=${modelPath(model.version)}>${model.version}</a>`}</span> <span class="muted">${model.kind === "prm" ? "PRM" : "policy"}</span></span>
    ${dataset === null ? html`<span class="muted small">${model.parent === null ? "The base: it was registered as it is." : "Its data is not known."}</span>` : html`<dl class="terms small"><dt>Data</dt><dd>${dataset.name}, ${number(dataset.rows)} rows${dataset.round ? html`, made by <a href=${`#/rounds/${dataset.round}`}>its round</a>` : ""}</dd><dt>File</dt><dd class="version">${dataset.uri}</dd><dt>SHA-256</dt><dd class="version">${dataset.sha256}</dd></dl>`}
  </li>`;
}

/** How probable its answers are, and what strategy measured best with it. @param {{found: any[], choices: any[]}} props */
function Calibrations({ found, choices }) {
  if (found.length === 0 && choices.length === 0) return null;
  return html`<section class="panel stack tight" aria-label="Calibration">
    <h2>How probable its answers are</h2>
    ${found.map((each) => html`<${Details} key=${`${each.policy} ${each.prm}`} summary=${html`<span><span class="version">${each.policy}</span> with <span class="version">${each.prm}</span>: expected calibration error ${each.reliability.ece.toFixed(3)}</span>`}>
      <p class="small muted">Fitted to ${number(each.problems)} problems (${each.source}). An answer needs ${percent(each.min_confidence)} to count as solved where the request says nothing else.</p>
      <div class="scroll"><table><thead><tr><th scope="col" class="num">Said</th><th scope="col" class="num">Was right</th><th scope="col" class="num">95 %</th><th scope="col" class="num">Answers</th></tr></thead><tbody>${each.reliability.bins.map((/** @type {any} */ bin, /** @type {number} */ place) => html`<tr key=${place}><td class="num">${percent(bin.predicted)}</td><td class="num">${percent(bin.share)}</td><td class="num">${percent(bin.ci95[0])}–${percent(bin.ci95[1])}</td><td class="num">${number(bin.n)}</td></tr>`)}</tbody></table></div>
    <//>`)}
    ${choices.map((each) => html`<p key=${`${each.policy} ${each.prm}`} class="small">Searches with the strategy <code>auto</code> take <code>${each.strategy}</code>: ${percent(each.accuracy, 1)} of ${number(each.n)} problems (${each.source}).</p>`)}
  </section>`;
}

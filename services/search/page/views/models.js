// @ts-check
/** What serves and what served before, every version with its figures, and where one comes from. */
import { html, useState } from "../vendor/preact-htm.js";
import { AdminError } from "../lib/admin.js";
import { api } from "../lib/api.js";
import { ago, dateTime, plural } from "../lib/format.js";
import { ModelDetail } from "../lib/model-detail.js";
import { MODEL_STATES, PairLine, PromoteDialog, RollBackDialog, WHY_SERVED } from "../lib/serving.js";
import { modelPath } from "../lib/rounds.js";
import { Badge, Button, Empty, Field, Spinner, useLoaded, useStyle, useTitle } from "../lib/ui.js";

/** @typedef {import("../lib/serving.js").Model} Model */
/** @typedef {import("../lib/serving.js").Pair} Pair */

/** @param {{query: URLSearchParams}} props */
export function Models({ query }) {
  useStyle("rounds");
  const version = query.get("version");
  useTitle(version === null ? "Models" : version);
  const models = useLoaded((signal) => api.get("/models?limit=1000", { signal }), []);
  const pairs = useLoaded((signal) => api.get("/pairs?limit=100", { signal }), []);
  const reload = () => {
    models.reload();
    pairs.reload();
  };
  const error = models.error ?? pairs.error;
  /** @type {Model[]|null} */
  const all = models.data?.models ?? null;
  /** @type {Pair[]|null} */
  const history = pairs.data?.pairs ?? null;
  return html`<div class="view stack">
    ${version === null ? html`<div class="head"><h1>Models</h1></div>` : html`<div class="head"><div class="stack tight"><p><a href="#/models">All models</a></p><h1 class="wrap">${version}</h1></div></div>`}
    ${error !== null && html`<${AdminError} error=${error} retry=${reload} />`}
    ${(all === null || history === null) && error === null && html`<${Spinner} label="Loading models" />`}
    ${all !== null && history !== null && version !== null && html`<${ModelDetail} key=${version} version=${version} pairs=${history} onChanged=${reload} />`}
    ${all !== null && history !== null && version === null && html`<${Serving} pairs=${history} onChanged=${reload} /><${Versions} models=${all} pairs=${history} onChanged=${reload} />`}
  </div>`;
}

/** @param {{pairs: Pair[], onChanged: () => void}} props */
function Serving({ pairs, onChanged }) {
  const [asked, setAsked] = useState(false);
  const [now, ...earlier] = pairs;
  if (now === undefined) return html`<${Empty} title="Nothing has been made to serve yet"><p>The policy service answers with the model of its settings; the trainer notes it as the first pair once both are up.</p><//>`;
  const back = pairs.find((each) => each.id === now.before) ?? null;
  return html`<section class="panel stack serving" aria-label="What serves">
    <div class="row between"><h2 class="row">Serves now <${Badge} tone="good" dot>pair ${now.id}<//></h2>${now.before !== null && html`<${Button} kind="danger" onClick=${() => setAsked(true)}>Roll back<//>`}</div>
    <${PairLine} pair=${now} />
    <p class="muted small">${WHY_SERVED[now.why] ?? now.why}, ${dateTime(now.created_at)}${now.round ? html`: <a href=${`#/rounds/${now.round}`}>the round</a>` : ""}.${now.before === null ? " Nothing served before it, so there is nothing to go back to." : ""}</p>
    ${earlier.length > 0 && html`<details class="fold"><summary>What served before (${earlier.length})</summary><div class="scroll"><table class="cards">
      <thead><tr><th scope="col">Pair</th><th scope="col">Policy</th><th scope="col">PRM</th><th scope="col">Why</th><th scope="col">Since</th></tr></thead>
      <tbody>${earlier.map((each) => html`<tr key=${each.id}><th scope="row">${each.id}</th><td class="version whole" data-label="Policy">${each.policy}</td><td class="version whole" data-label="PRM">${each.prm}</td><td data-label="Why">${WHY_SERVED[each.why] ?? each.why}</td><td class="nowrap" data-label="Since" title=${dateTime(each.created_at)}>${ago(each.created_at)}</td></tr>`)}</tbody>
    </table></div></details>`}
    ${asked && html`<${RollBackDialog} now=${now} back=${back} onChanged=${onChanged} onClose=${() => setAsked(false)} />`}
  </section>`;
}

/** @param {{models: Model[], pairs: Pair[], onChanged: () => void}} props */
function Versions({ models, pairs, onChanged }) {
  const [kind, setKind] = useState("");
  const [promoted, promote] = useState(/** @type {Model|null} */ (null));
  const shown = models.filter((each) => kind === "" || each.kind === kind);
  const chosen = (/** @type {any} */ event) => setKind(event.currentTarget.value);
  return html`<section class="panel stack tight" aria-label="Versions">
    <div class="row between"><h2>Versions <span class="muted">${plural(shown.length, "version")}</span></h2><${Field} label="Kind">${(/** @type {any} */ control) => html`<select ...${control} onChange=${chosen}><option value="">all</option><option value="policy">policies</option><option value="prm">PRMs</option></select>`}<//></div>
    ${shown.length === 0 && html`<p class="muted">None is registered.</p>`}
    ${shown.length > 0 && html`<div class="scroll"><table class="cards">
      <thead><tr><th scope="col">Version</th><th scope="col">Kind</th><th scope="col">State</th><th scope="col">Trained from</th><th scope="col">Made</th><th scope="col"><span class="visually-hidden">Actions</span></th></tr></thead>
      <tbody>${shown.map((each) => html`<tr key=${each.version}>
        <th scope="row" class="version whole"><a href=${modelPath(each.version)}>${each.version}</a></th>
        <td data-label="Kind">${each.kind === "prm" ? "PRM" : "policy"}</td>
        <td data-label="State"><${Badge} tone=${MODEL_STATES[each.state]?.tone}>${MODEL_STATES[each.state]?.label ?? each.state}<//></td>
        <td class="version whole" data-label="Trained from">${each.parent ? html`<a href=${modelPath(each.parent)}>${each.parent}</a>` : "–"}</td>
        <td class="nowrap" data-label="Made" title=${dateTime(each.created_at)}>${ago(each.created_at)}</td>
        <td>${(each.state === "candidate" || each.state === "retired") && html`<${Button} small onClick=${() => promote(each)}>Serve<//>`}</td>
      </tr>`)}</tbody>
    </table></div>`}
    ${promoted && html`<${PromoteDialog} model=${promoted} pairs=${pairs} onChanged=${onChanged} onClose=${() => promote(null)} />`}
  </section>`;
}

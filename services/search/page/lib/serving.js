// @ts-check
/** Pairs that serve, in words, and the questions before another one does. */
import { html } from "../vendor/preact-htm.js";
import { ConfirmDialog } from "./admin.js";
import { api } from "./api.js";
import { modelPath, modelUrl } from "./rounds.js";
import { toast } from "./ui.js";

/** @typedef {import("./format.js").Tone} Tone */
/** @typedef {{version: string, kind: "policy"|"prm", state: string, parent: string|null, uri: string, sha256: string, dataset: string|null, metrics: Record<string, any>, created_at: string}} Model */
/** @typedef {{id: number, policy: string, prm: string, why: string, round: string|null, before: number|null, created_at: string}} Pair */

/** Loading a version may take minutes. */
const PATIENCE_MS = 310_000;

/** @type {Record<string, {label: string, tone: Tone}>} */
export const MODEL_STATES = {
  candidate: { label: "Candidate", tone: "plain" },
  serving: { label: "Serves", tone: "good" },
  retired: { label: "Served before", tone: "accent" },
  rejected: { label: "Rejected", tone: "warn" },
};
/** @type {Record<string, string>} */
export const WHY_SERVED = {
  round: "Promoted by a round's gate",
  person: "Promoted by a person",
  rollback: "Rolled back to",
  settings: "Named by the settings",
};

/** @param {{pair: {policy: string, prm: string}}} props */
export function PairLine({ pair }) {
  return html`<dl class="terms"><dt>Policy</dt><dd class="version"><a href=${modelPath(pair.policy)}>${pair.policy}</a></dd><dt>PRM</dt><dd class="version">${pair.prm.startsWith("prm1-") ? pair.prm : html`<a href=${modelPath(pair.prm)}>${pair.prm}</a>`}</dd></dl>`;
}

/** @param {{now: Pair, back: Pair|null, onChanged: () => void, onClose: () => void}} props */
export function RollBackDialog({ now, back, onChanged, onClose }) {
  const act = async () => {
    /** @type {Pair} */
    const pair = await api.post("/pairs/rollback", { pair: now.id }, { timeout: PATIENCE_MS });
    toast(`Pair ${pair.id} serves: ${pair.policy} with ${pair.prm}.`, "good");
    onChanged();
  };
  return html`<${ConfirmDialog} title="Roll back?" action="Roll back" danger act=${act} onClose=${onClose}>
    <p>New requests will be answered by the policy and the PRM that served before, together. Requests under way finish on the present ones; none is dropped.</p>
    <h3>Serves now</h3><${PairLine} pair=${now} />
    <h3>Will serve</h3>${back === null ? html`<p>Pair ${now.before}, which is older than this list.</p>` : html`<${PairLine} pair=${back} />`}
  <//>`;
}

/** @param {{model: Model, pairs: Pair[], onChanged: () => void, onClose: () => void}} props */
export function PromoteDialog({ model, pairs, onChanged, onClose }) {
  const now = pairs[0] ?? null;
  const act = async () => {
    /** @type {Pair} */
    const pair = await api.post(`${modelUrl(model.version)}/serve`, undefined, { timeout: PATIENCE_MS });
    toast(`Pair ${pair.id} serves: ${pair.policy} with ${pair.prm}.`, "good");
    onChanged();
  };
  const beside = model.kind === "prm" ? null : pairs.find((each) => each.policy === model.version) ?? null;
  return html`<${ConfirmDialog} title="Serve this version?" action="Serve it" act=${act} onClose=${onClose}>
    <p>New requests will be answered by it, without the gate's word. Requests under way finish on what serves now; none is dropped, and you can roll back.</p>
    ${now !== null && html`<h3>Serves now</h3><${PairLine} pair=${now} />`}
    <h3>Will serve</h3>
    ${model.kind === "prm" && now !== null && html`<${PairLine} pair=${{ policy: now.policy, prm: model.version }} />`}
    ${model.kind === "prm" && now === null && html`<p>A PRM serves beside a policy, and none serves yet: this will be refused.</p>`}
    ${beside !== null && html`<${PairLine} pair=${{ policy: model.version, prm: beside.prm }} />`}
    ${model.kind === "policy" && beside === null && html`<p><span class="version">${model.version}</span>, with the present PRM if that was trained on it, and with PRM1, which needs no training, otherwise.</p>`}
  <//>`;
}

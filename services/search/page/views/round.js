// @ts-check
/** One round: where it stands, what it measured and why it was promoted or not, its data, its configuration. */
import { html } from "../vendor/preact-htm.js";
import { AdminError } from "../lib/admin.js";
import { api } from "../lib/api.js";
import { dateTime, duration, number, percent, secondsBetween } from "../lib/format.js";
import { RoundActions } from "../lib/round-actions.js";
import { RoundConfig, RoundData, Trainings } from "../lib/round-parts.js";
import { DECISIONS, PAIR_NAMES, accuracyOf, figureText, isOver, measureName, modelPath, points, pointsInterval, verdictOf, versionsOf } from "../lib/rounds.js";
import { Badge, Spinner, useLoaded, useStyle, useTitle } from "../lib/ui.js";
import { Progress, RoundBadge, Stages, usePolling } from "../lib/under-way.js";

/** @typedef {import("../lib/rounds.js").Round} Round */
/** @typedef {import("../lib/rounds.js").MeasuredPair} MeasuredPair */

/** @param {{roundId: string}} props */
export function Round({ roundId }) {
  useStyle("rounds");
  const { data, error, reload } = useLoaded((signal) => api.get(`/rounds/${encodeURIComponent(roundId)}`, { signal }), [roundId]);
  /** @type {Round|null} */
  const round = data;
  const others = useLoaded((signal) => (round ? api.get(`/rounds?run=${encodeURIComponent(round.run)}&limit=1000`, { signal }) : Promise.resolve(null)), [round?.run ?? null]);
  const before = others.data?.rounds.find((/** @type {Round} */ each) => each.number === (round?.number ?? 0) - 1);
  useTitle(round ? `Round ${round.number} of ${round.run}` : "Round");
  usePolling(round !== null && !isOver(round), reload);
  return html`<div class="view stack">
    ${error !== null && html`<${AdminError} error=${error} retry=${reload} />`}
    ${round === null && error === null && html`<${Spinner} label="Loading the round" />`}
    ${round === null && error !== null && html`<h1>Round</h1>`}
    ${round !== null && html`
      <${Head} round=${round} onChanged=${reload} />
      ${!isOver(round) && html`<section class="panel under-way" aria-label="Progress"><${Progress} round=${round} before=${before} /></section>`}
      <${Stages} round=${round} />
      <${GateVerdict} round=${round} />
      <${Measurements} round=${round} />
      <${PrmQuality} round=${round} />
      <${RoundData} round=${round} />
      <${Trainings} round=${round} />
      <${RoundConfig} round=${round} />`}
  </div>`;
}

/** @param {{round: Round, onChanged: () => void}} props */
function Head({ round, onChanged }) {
  return html`<div class="head">
    <div class="stack tight">
      <p><a href=${`#/rounds?run=${encodeURIComponent(round.run)}`}>Rounds of ${round.run}</a></p>
      <h1 class="row">Round ${round.number} <${RoundBadge} round=${round} /></h1>
      <p class="muted">Begun ${dateTime(round.created_at)}${round.ended_at ? `, ended ${dateTime(round.ended_at)} after ${duration(secondsBetween(round.created_at, round.ended_at))}` : `, ${duration(secondsBetween(round.created_at, null))} ago`}</p>
    </div>
    <${RoundActions} round=${round} onChanged=${onChanged} />
  </div>`;
}

/** @param {{round: Round}} props */
function GateVerdict({ round }) {
  const gate = round.metrics.gate;
  const tone = round.state === "promoted" ? "good" : round.state === "failed" ? "bad" : round.state === "rejected" ? "warn" : "";
  return html`<section class="stack tight" aria-label="The gate">
    <h2>What the gate said</h2>
    <div class=${`box ${tone}`}><p class="verdict wrap">${verdictOf(round)}</p></div>
    ${gate && Object.keys(gate.comparisons).length > 0 && html`<div class="panel stack tight"><div class="scroll"><table class="cards">
      <caption>The new pair against the best so far, on the same development problems. It is promoted when every comparison shows that it is not worse by ${points(round.config.gate.margin).replace("+", "")} points or more.</caption>
      <thead><tr><th scope="col">Compared</th><th scope="col" class="num">Difference, points</th><th scope="col" class="num">95 % interval</th><th scope="col" class="num">Problems</th><th scope="col">Says</th></tr></thead>
      <tbody>${Object.entries(gate.comparisons).map(([name, each]) => {
        const { label, tone: shade } = DECISIONS[each.decision] ?? { label: each.decision, tone: "plain" };
        return html`<tr key=${name}><th scope="row" class="whole">${measureName(name)}</th><td class="num" data-label="Difference, points">${points(each.difference)}</td><td class="num" data-label="95 % interval">${pointsInterval(each.ci95)}</td><td class="num" data-label="Problems">${number(each.n)}</td><td data-label="Says"><${Badge} tone=${shade}>${label}<//></td></tr>`;
      })}</tbody>
    </table></div>
    ${gate.candidate && html`<p class="small muted">Tested: <${PairName} pair=${gate.candidate} />, against <${PairName} pair=${gate.reference} />.</p>`}
    </div>`}
    ${gate && Object.keys(gate.selection ?? {}).length > 0 && html`<${Considered} gate=${gate} />`}
  </section>`;
}

/** The new pairs among which the first development problems chose. @param {{gate: any}} props */
function Considered({ gate }) {
  return html`<div class="panel scroll"><table class="cards">
    <caption>Pairs that were considered: what each solves of the problems that chose, by the vote over the policy's samples.</caption>
    <thead><tr><th scope="col">Pair</th><th scope="col" class="num">Solved</th><th scope="col" class="num">Accuracy</th><th scope="col"></th></tr></thead>
    <tbody>${Object.entries(gate.selection).map(([pair, found]) => html`<tr key=${pair}><th scope="row" class="whole"><${PairName} pair=${pair} /></th><td class="num" data-label="Solved">${number(found.right)} of ${number(found.n * found.samples)}</td><td class="num" data-label="Accuracy">${accuracyOf(found)}</td><td>${pair === gate.candidate ? html`<${Badge} tone="accent">tested<//>` : pair === gate.reference && html`<${Badge}>best so far<//>`}</td></tr>`)}</tbody>
  </table></div>`;
}

/** @param {{pair: string}} props */
function PairName({ pair }) {
  const { policy, prm } = versionsOf(pair);
  return html`<span class="version"><a href=${modelPath(policy)}>${policy}</a> with ${prm.includes("@") ? html`<a href=${modelPath(prm)}>${prm}</a>` : prm}</span>`;
}

/** @param {{round: Round}} props */
function Measurements({ round }) {
  const evaluation = round.metrics.evaluation;
  if (!evaluation) return null;
  const pairs = ["incumbent", "reference", "candidate"].filter((who) => evaluation[who] && Object.keys(evaluation[who].measured).length > 0);
  const names = [...new Set(pairs.flatMap((who) => Object.keys(evaluation[who].measured)))].sort().reverse();
  const compared = names.find((name) => name === "held_out.mcts") ?? names[0];
  return html`<section class="panel stack tight" aria-label="Measurements">
    <div class="row between"><h2>Measured</h2><a href=${`#/evaluations?a=${round.id}.incumbent.${compared}&b=${round.id}.candidate.${compared}`}>Compare problem by problem</a></div>
    <div class="scroll"><table class="cards">
      <caption>Accuracy with its 95 % interval and, beside it, generated tokens a problem. The gate sees development problems alone.</caption>
      <thead><tr><th scope="col">Strategy and problems</th>${pairs.map((who) => html`<th scope="col" class="num" key=${who}>${PAIR_NAMES[who]}</th>`)}</tr></thead>
      <tbody>${names.map((name) => html`<tr key=${name}><th scope="row" class="whole">${measureName(name)}</th>${pairs.map((who) => html`<td class="num" key=${who} data-label=${PAIR_NAMES[who]}><${Cell} found=${evaluation[who].measured[name]} /></td>`)}</tr>`)}</tbody>
    </table></div>
    <dl class="terms small">${pairs.map((who) => html`<dt key=${`${who}t`}>${PAIR_NAMES[who]}</dt><dd key=${`${who}d`}><${PairName} pair=${evaluation[who].pair} /></dd>`)}</dl>
  </section>`;
}

/** @param {{found: import("../lib/rounds.js").Measured|undefined}} props */
function Cell({ found }) {
  if (!found) return "–";
  const failed = [...found.outcomes].filter((each) => each === "-").length;
  return html`${accuracyOf(found)}<br /><span class="small muted">${number(found.n)} problems${found.samples > 1 ? ` × ${found.samples}` : ""}, ${number(found.tokens)} tokens${failed > 0 ? `, ${failed} failed` : ""}</span>`;
}

/** @type {[string, string][]} */
const QUALITY = [
  ["within_step_auc", "Steps within problems, AUC"],
  ["within_end_auc", "Ends within problems, AUC"],
  ["sibling_accuracy", "Sibling accuracy"],
  ["first_error_f1", "First error, F1"],
  ["pooled_step_auc", "Steps of all problems, AUC"],
  ["pooled_end_auc", "Ends of all problems, AUC"],
  ["calibration_error_raw", "Calibration error, raw"],
  ["calibration_error", "Calibration error"],
];

/** @param {{round: Round}} props */
function PrmQuality({ round }) {
  const prm = round.metrics.prm;
  if (!prm) return null;
  const known = QUALITY.filter(([field]) => prm.quality[field]);
  const depths = Object.entries(prm.quality.sibling_accuracy_by_depth ?? {});
  return html`<section class="panel stack tight" aria-label="Quality of the PRM">
    <h2>Quality of the PRM</h2>
    <p class="muted">On ${number(prm.held_out_problems)} problems that neither it nor its policy was trained on. 0.5 is chance for AUC and sibling accuracy; an error is better the smaller it is.</p>
    <div class="scroll"><table class="cards">
      <thead><tr><th scope="col">Figure</th><th scope="col" class="num">Value (95 % interval)</th><th scope="col" class="num">Over</th></tr></thead>
      <tbody>${known.map(([field, label]) => html`<tr key=${field}><th scope="row" class="whole">${label}</th><td class="num" data-label="Value (95 %)">${figureText(prm.quality[field])}</td><td class="num" data-label="Over">${number(prm.quality[field].n)}</td></tr>`)}
      ${depths.map(([depth, figure]) => html`<tr key=${`depth${depth}`}><th scope="row" class="whole">Sibling accuracy, depth ${depth}</th><td class="num" data-label="Value (95 %)">${figureText(figure)}</td><td class="num" data-label="Over">${number(/** @type {any} */ (figure).n)}</td></tr>`)}</tbody>
    </table></div>
    ${prm.held_out_problems === 0 && html`<p>${percent(0)} of the problems were kept apart: it is neither judged nor calibrated.</p>`}
  </section>`;
}

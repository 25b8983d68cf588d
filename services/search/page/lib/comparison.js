// @ts-check
/** What the paired test of two evaluations says, and the problems on which they differ. */
import { html } from "../vendor/preact-htm.js";
import { number, plural } from "./format.js";
import { PAIR_NAMES, interval, measureName, points, pointsInterval } from "./rounds.js";
import { Empty } from "./ui.js";

/** @typedef {{name: string, tries: number, accuracy: number, ci95: [number, number], left_out: number}} Side */
/** @typedef {{id: string, problem: string|null, source: string|null, first: number, second: number, first_search: string|null, second_search: string|null}} Differing */
/** @typedef {{first: Side, second: Side, n: number, difference: number, ci95: [number, number], better: number, worse: number, p: number, differing: Differing[]}} Found */
/** @typedef {import("./eval-files.js").EvalFiles} EvalFiles */

/** @param {{found: Found, files: {a: EvalFiles|null, b: EvalFiles|null}}} props */
export function Comparison({ found, files }) {
  const { first, second } = found;
  return html`<section class="panel stack" aria-label="Comparison" aria-live="polite">
    <h2>What the test says</h2>
    <p class="verdict">${said(found)}</p>
    <dl class="figures">
      <div><dt>points of accuracy<small>95 %: ${pointsInterval(found.ci95)}</small></dt><dd>${points(found.difference)}</dd></div>
      <div><dt>problems gained<small>of which the second solves more</small></dt><dd class="won">${number(found.better)}</dd></div>
      <div><dt>problems lost<small>of which the second solves less</small></dt><dd class="lost">${number(found.worse)}</dd></div>
      <div><dt>p<small>exact sign-flip test${first.tries === 1 && second.tries === 1 ? " (McNemar's)" : ""}, two-sided</small></dt><dd>${probability(found.p)}</dd></div>
      <div><dt>problems<small>that both have tried</small></dt><dd>${number(found.n)}</dd></div>
    </dl>
    <div class="scroll"><table class="cards">
      <thead><tr><th scope="col">Evaluation</th><th scope="col" class="num">Accuracy there</th><th scope="col" class="num">Tries</th><th scope="col" class="num">Its other problems</th></tr></thead>
      <tbody>${[first, second].map((side, place) => html`<tr key=${place}><th scope="row" class="wrap whole">${place === 0 ? "First" : "Second"}: ${inWords(side.name)}</th><td class="num" data-label="Accuracy there">${interval(side.accuracy, side.ci95[0], side.ci95[1])}</td><td class="num" data-label="Tries">${number(side.tries)}</td><td class="num" data-label="Its other problems">${number(side.left_out)}</td></tr>`)}</tbody>
    </table></div>
    ${found.differing.length === 0 ? html`<${Empty} title="They agree on every problem" />` : html`<${Differences} found=${found} files=${files} />`}
  </section>`;
}

/** What the service calls an evaluation of a round, as this page does. @param {string} name */
const inWords = (name) => name.replace(/, (candidate|incumbent|reference), ((?:development|held_out)\.\w+)$/, (_, who, measured) => `, ${(PAIR_NAMES[who] ?? who).toLowerCase()}: ${measureName(measured)}`);

/** @param {Found} found */
function said({ n, difference, ci95, better, worse, p }) {
  if (better === 0 && worse === 0) return `Both solve the same of the ${plural(n, "problem")}.`;
  const much = Math.abs(difference * 100).toFixed(1);
  const more = difference > 0 ? `${much} points more` : difference < 0 ? `${much} points less` : "as much";
  const chance = `If neither were better, a difference at least as large would come with probability ${probability(p)}`;
  const shown = ci95[0] > 0 ? "that it is better" : ci95[1] < 0 ? "that it is worse" : "neither that it is better nor that it is worse";
  return `The second solves ${more} than the first. ${chance}. The interval shows ${shown}.`.replace("as much than", "as much as");
}

/** @param {number} p */
const probability = (p) => (p < 0.001 ? "under 0.001" : p.toFixed(p < 0.1 ? 3 : 2));

/** @param {{found: Found, files: {a: EvalFiles|null, b: EvalFiles|null}}} props */
function Differences({ found, files }) {
  const answered = files.a !== null || files.b !== null;
  const total = found.better + found.worse;
  return html`<div class="stack tight"><h3>Where they differ</h3>
    ${found.differing.length < total && html`<p class="muted small">${number(found.differing.length)} of ${number(total)} are shown.</p>`}
    <div class="scroll"><table class="cards">
      <thead><tr><th scope="col">Problem</th><th scope="col">First</th><th scope="col">Second</th>${answered && html`<th scope="col">Reference</th>`}</tr></thead>
      <tbody>${found.differing.map((each) => html`<${DifferingRow} key=${each.id} each=${each} found=${found} files=${files} answered=${answered} />`)}</tbody>
    </table></div></div>`;
}

/** @param {{each: Differing, found: Found, files: {a: EvalFiles|null, b: EvalFiles|null}, answered: boolean}} props */
function DifferingRow({ each, found, files, answered }) {
  const [a, b] = [files.a?.lines.get(each.id), files.b?.lines.get(each.id)];
  const line = a?.[0] ?? b?.[0];
  return html`<tr>
    <th scope="row" class="whole wrap">${each.problem ?? each.source ?? line?.source ?? each.id}</th>
    <td data-label="First"><${Outcome} right=${each.first} tries=${found.first.tries} search=${each.first_search ?? a?.[0]?.search ?? null} answers=${a?.map((one) => one.answer)} /></td>
    <td data-label="Second"><${Outcome} right=${each.second} tries=${found.second.tries} search=${each.second_search ?? b?.[0]?.search ?? null} answers=${b?.map((one) => one.answer)} /></td>
    ${answered && html`<td class="wrap" data-label="Reference">${line?.reference ?? "–"}</td>`}
  </tr>`;
}

/** @param {{right: number, tries: number, search: string|null, answers: (string|null)[]|undefined}} props */
function Outcome({ right, tries, search, answers }) {
  const text = tries === 1 ? (right === 1 ? "solved" : "not solved") : `${right} of ${tries}`;
  return html`<span class=${right === tries ? "won" : right === 0 ? "lost" : ""}>${text}</span>
    ${answers && html` <span class="small muted wrap">${answers.map((each) => each ?? "no answer").join(", ")}</span>`}
    ${search && html` <a class="small nowrap" href=${`#/search/${encodeURIComponent(search)}`}>its search</a>`}`;
}

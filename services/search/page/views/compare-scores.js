// @ts-check
/** PRM scores of two programs' steps: as curves, and as a table that says the same. */
import { html } from "../vendor/preact-htm.js";
import { score } from "../lib/format.js";

/** @typedef {import("../lib/search-model.js").StepView} StepView */

const HIGH = 150;
const GRID = [0, 0.25, 0.5, 0.75, 1];

/** @param {{a: StepView[], b: StepView[]}} props */
export function ScoreCurves({ a, b }) {
  const count = Math.max(a.length, b.length);
  if (![...a, ...b].some((step) => step.prm_score !== null)) return null;
  const numbers = Array.from({ length: count }, (_, index) => index);
  return html`<section class="panel stack tight" aria-label="Scores of the steps">
    <div class="row between"><h2>PRM score, step by step</h2><span class="row small"><span class="compare-key a">A</span><span class="compare-key b">B</span></span></div>
    <div class="compare-chart" aria-hidden="true">
      <svg width="100%" height=${HIGH + 20}>
        ${GRID.map((value) => html`<g key=${value}><line class="grid" x1="2.2rem" x2="100%" y1=${y(value)} y2=${y(value)} /><text x="0" y=${y(value) + 4}>${value.toFixed(2)}</text></g>`)}
        <svg x="2.2rem" y="0" width="calc(100% - 3rem)" height=${HIGH + 20} overflow="visible" class="plot">
          <${Curve} steps=${b} count=${count} name="b" /><${Curve} steps=${a} count=${count} name="a" />
        </svg>
      </svg>
    </div>
    <div class="scroll" tabindex="0" role="region" aria-label="Scores and outputs of the steps"><table class="compare-scores">
      <thead><tr><th scope="col">Step</th><th scope="col" class="num">A</th><th scope="col" class="num">B</th><th scope="col">A printed</th><th scope="col">B printed</th></tr></thead>
      <tbody>${numbers.map((index) => html`<tr key=${index}><th scope="row">${index + 1}</th><td class="num">${score(a[index]?.prm_score)}</td><td class="num">${score(b[index]?.prm_score)}</td><td><code>${printed(a[index])}</code></td><td><code>${printed(b[index])}</code></td></tr>`)}</tbody>
    </table></div>
  </section>`;
}

/** @param {{steps: StepView[], count: number, name: string}} props */
function Curve({ steps, count, name }) {
  const points = steps.flatMap((step, index) => (step.prm_score === null ? [] : [{ x: x(index, count), y: y(step.prm_score) }]));
  return html`<g class=${`curve ${name}`}>
    ${points.slice(1).map((point, index) => html`<line key=${`line ${index}`} x1=${points[index]?.x} y1=${points[index]?.y} x2=${point.x} y2=${point.y} />`)}
    ${points.map((point, index) => html`<circle key=${`dot ${index}`} cx=${point.x} cy=${point.y} r=${name === "a" ? 3.5 : 4.5} />`)}
  </g>`;
}

/** @param {number} index @param {number} count */
function x(index, count) {
  return `${count > 1 ? 2 + (96 * index) / (count - 1) : 50}%`;
}

/** @param {number} value */
function y(value) {
  return 8 + (1 - value) * (HIGH - 8);
}

/** @param {StepView|undefined} step */
function printed(step) {
  const text = (step?.stdout ?? "").trim();
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}

// @ts-check
/** The rounds of a run: what is under way, the curves over rounds, and what the gate said of each. */
import { html } from "../vendor/preact-htm.js";
import { AdminError } from "../lib/admin.js";
import { api } from "../lib/api.js";
import { CurveChart } from "../lib/chart.js";
import { ago, dateTime, duration, number, percent, plural, secondsBetween } from "../lib/format.js";
import { navigate } from "../lib/router.js";
import { RoundActions } from "../lib/round-actions.js";
import { STRATEGY_NAMES, accuracyOf, edges, figureText, interval, isOver, verdictOf } from "../lib/rounds.js";
import { Code, Empty, Field, Spinner, useLoaded, useStyle, useTitle } from "../lib/ui.js";
import { Progress, RoundBadge, Stages, usePolling } from "../lib/under-way.js";

/** @typedef {import("../lib/rounds.js").Round} Round */
/** @typedef {import("../lib/rounds.js").Figure} Figure */

/** @param {{query: URLSearchParams}} props */
export function Rounds({ query }) {
  useStyle("rounds");
  useTitle("Rounds");
  const { data, error, reload } = useLoaded((signal) => api.get("/rounds?limit=200", { signal }), []);
  /** @type {Round[]} */
  const all = data?.rounds ?? [];
  usePolling(all.some((each) => !isOver(each)), reload);
  const runs = [...new Set(all.map((each) => each.run))];
  const run = query.get("run") ?? runs[0] ?? null;
  const rounds = all.filter((each) => each.run === run).sort((a, b) => a.number - b.number);
  const choose = (/** @type {any} */ event) => navigate(`/rounds?run=${encodeURIComponent(event.currentTarget.value)}`);
  return html`<div class="view stack">
    <div class="head"><h1>Rounds</h1>${runs.length > 1 && html`<${Field} label="Run">${(/** @type {any} */ control) => html`<select ...${control} onChange=${choose}>${runs.map((each) => html`<option key=${each} value=${each} selected=${each === run}>${each}</option>`)}</select>`}<//>`}</div>
    ${error !== null && html`<${AdminError} error=${error} retry=${reload} />`}
    ${data === null && error === null && html`<${Spinner} label="Loading rounds" />`}
    ${data !== null && all.length === 0 && html`<${NoRounds} />`}
    ${data !== null && all.length > 0 && rounds.length === 0 && html`<${Empty} title=${`There is no run ${run}`}><a href="#/rounds">All rounds<//><//>`}
    ${rounds.filter((each) => !isOver(each)).reverse().map((each) => html`<${UnderWay} key=${each.id} round=${each} before=${rounds.find((other) => other.number === each.number - 1)} onChanged=${reload} />`)}
    ${rounds.length > 0 && html`<${Curves} rounds=${rounds} /><${RoundTable} rounds=${rounds} run=${run} />`}
  </div>`;
}

function NoRounds() {
  return html`<${Empty} title="No round has been begun"><p>A round searches training problems, trains the next policy and PRM on what was verified, and promotes the pair if it is shown to be no worse. Begin one on nano's own problems; it takes some minutes:</p><${Code} text="ratchet rounds run --rounds 1 --preset nano --model nano" label="command" /><//>`;
}

/** @param {{round: Round, before: Round|undefined, onChanged: () => void}} props */
function UnderWay({ round, before, onChanged }) {
  return html`<section class="panel under-way" aria-label=${`Round ${round.number}, under way`}>
    <div class="row between"><h2 class="row"><a href=${`#/rounds/${round.id}`}>Round ${round.number}</a> <${RoundBadge} round=${round} /></h2><${RoundActions} round=${round} onChanged=${onChanged} /></div>
    <${Progress} round=${round} before=${before} />
    <${Stages} round=${round} />
  </section>`;
}

/** @param {{rounds: Round[]}} props */
function Curves({ rounds }) {
  const nameOf = (/** @type {number} */ x) => (x === 0 ? "start" : `round ${x}`);
  const common = { axis: "After", nameOf };
  const share = (/** @type {number} */ y) => percent(y);
  const accuracy = ["greedy", "mcts", "best_of_n", "majority"].map((strategy) => ({ name: STRATEGY_NAMES[strategy] ?? strategy, points: accuracyPoints(rounds, strategy) }));
  const coverage = [{ name: "Coverage", points: rounds.filter((each) => each.metrics.label).map((each) => ({ x: each.number, value: each.metrics.label.coverage, text: `${percent(each.metrics.label.coverage, 1)}, ${number(each.metrics.label.solved)} of ${number(each.metrics.label.problems)}` })) }];
  return html`<section class="charts" aria-label="Curves over rounds">
    <div class="panel wide"><${CurveChart} ...${common} title="Accuracy on held-out problems" description="Of the pair that each round made, with 95 % intervals. A line joins what served; a hollow mark was not promoted." series=${accuracy} format=${share} /></div>
    <div class="panel"><${CurveChart} ...${common} title="Coverage of the training problems" description="Share of the training problems that the searches of each round solved." series=${coverage} format=${share} /></div>
    <div class="panel"><${CurveChart} ...${common} title="Quality of the PRM" description="On problems that it was not trained on, with 95 % intervals. 0.5 is chance." series=${qualitySeries(rounds)} format=${(/** @type {number} */ y) => y.toFixed(2)} /></div>
  </section>`;
}

/** What served at the start, then the pair that each round made. @param {Round[]} rounds @param {string} strategy */
function accuracyPoints(rounds, strategy) {
  const measured = rounds.filter((each) => each.metrics.evaluation);
  const point = (/** @type {number} */ x, /** @type {import("../lib/rounds.js").Measured|undefined} */ found, aside = false) =>
    found ? [{ x, value: found.accuracy, low: found.ci95[0], high: found.ci95[1], aside, text: accuracyOf(found) }] : [];
  const first = measured.find((each) => Object.keys(each.metrics.evaluation.incumbent.measured).length > 0);
  const name = `held_out.${strategy}`;
  return [
    ...point(0, first?.metrics.evaluation.incumbent.measured[name]),
    ...measured.flatMap((each) => point(each.number, each.metrics.evaluation.candidate.measured[name], each.state !== "promoted")),
  ];
}

/** @param {Round[]} rounds */
function qualitySeries(rounds) {
  const trained = rounds.filter((each) => each.metrics.prm);
  const series = (/** @type {string} */ name, /** @type {string} */ field) => ({
    name,
    points: trained.flatMap((each) => {
      /** @type {Figure|null} */
      const figure = each.metrics.prm.quality[field];
      return figure && figure.value !== null ? [{ x: each.number, value: figure.value, low: figure.low, high: figure.high, aside: each.state !== "promoted", text: figureText(figure) }] : [];
    }),
  });
  const within = [series("Steps, within problems (AUC)", "within_step_auc"), series("Sibling accuracy", "sibling_accuracy")];
  // Rounds of 0.1.0 compared steps of all problems with one another.
  return within.some((each) => each.points.length > 0) ? within : [series("Steps of all problems (AUC)", "pooled_step_auc"), series("Ends of all problems (AUC)", "pooled_end_auc")];
}

/** @param {{rounds: Round[], run: string|null}} props */
function RoundTable({ rounds, run }) {
  return html`<section class="panel stack tight" aria-label="All rounds">
    <div class="row between"><h2>Rounds of ${run}</h2><span class="muted">${plural(rounds.length, "round")}</span></div>
    <div class="scroll"><table class="cards">
      <thead><tr><th scope="col">Round</th><th scope="col">State</th><th scope="col">Begun</th><th scope="col" class="num">Took</th><th scope="col" class="num">Coverage</th><th scope="col" class="num">Policy, greedy</th><th scope="col" class="num">System</th><th scope="col">What the gate said</th></tr></thead>
      <tbody>${[...rounds].reverse().map((each) => html`<${RoundRow} key=${each.id} round=${each} />`)}</tbody>
    </table></div>
  </section>`;
}

/** @param {{found: import("../lib/rounds.js").Measured|undefined}} props */
function Accuracy({ found }) {
  return found ? html`${percent(found.accuracy, 1)} <span class="edges">${edges(found.ci95[0], found.ci95[1])}</span>` : "–";
}

/** @param {{round: Round}} props */
function RoundRow({ round }) {
  const measured = round.metrics.evaluation?.candidate.measured ?? {};
  const aside = round.metrics.selection?.quarantined ?? 0;
  return html`<tr>
    <th scope="row"><a class="nowrap" href=${`#/rounds/${round.id}`}>Round ${round.number}</a></th>
    <td><${RoundBadge} round=${round} /></td>
    <td class="nowrap" data-label="Begun" title=${dateTime(round.created_at)}>${ago(round.created_at)}</td>
    <td class="num nowrap" data-label="Took">${duration(secondsBetween(round.created_at, round.ended_at))}</td>
    <td class="num" data-label="Coverage">${interval(round.metrics.label?.coverage, null, null)}</td>
    <td class="num" data-label="Policy, greedy"><${Accuracy} found=${measured["held_out.greedy"]} /></td>
    <td class="num" data-label="System"><${Accuracy} found=${measured["held_out.mcts"]} /></td>
    <td class="reason whole">${verdictOf(round)} ${aside > 0 && html`<a href=${`#/rounds/${round.id}/quarantine`}>${plural(aside, "problem")} set aside</a>`}</td>
  </tr>`;
}

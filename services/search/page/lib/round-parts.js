// @ts-check
/** What a round worked with: its problems and searches, the data that it made, its trainings, its configuration. */
import { html } from "../vendor/preact-htm.js";
import { duration, number, percent, plural } from "./format.js";
import { SPLIT_NAMES, modelPath } from "./rounds.js";
import { Code, Details } from "./ui.js";

/** @typedef {import("./rounds.js").Round} Round */

/** @param {{round: Round}} props */
export function RoundData({ round }) {
  const { problems, label, selection } = round.metrics;
  if (!problems && !label && !selection) return null;
  return html`<section class="panel stack" aria-label="Data">
    <div class="row between"><h2>Data</h2><a href=${`#/rounds/${round.id}/quarantine`}>${selection?.quarantined > 0 ? `${plural(selection.quarantined, "problem")} set aside` : "Problems set aside"}</a></div>
    ${problems && html`<${Splits} problems=${problems} config=${round.config} />`}
    <dl class="figures">
      ${label && html`
        <${Figure} name="of the training problems solved" value=${percent(label.coverage, 1)} more=${`${number(label.solved)} of ${number(label.problems)}`} />
        <${Figure} name="searches" value=${number(label.searches)} more=${`${plural(label.rollouts, "rollout")}, ${number(label.failed)} failed`} />
        <${Figure} name="tokens generated" value=${number(label.tokens)} />`}
      ${selection && html`
        <${Figure} name="programs to learn from" value=${number(selection.rows)} more=${`of ${plural(selection.selected_problems, "problem")}`} />
        <${Figure} name="trees for the PRM" value=${number(selection.trees)} />
        ${selection.kept_apart !== null && html`<${Figure} name="problems kept apart" value=${number(selection.kept_apart)} more="that judge both trainings" />`}`}
    </dl>
    ${selection && html`<${Selected} selection=${selection} />`}
  </section>`;
}

/** @param {{name: string, value: string, more?: string}} props */
function Figure({ name, value, more }) {
  return html`<div><dt>${name}${more && html`<small>${more}</small>`}</dt><dd>${value}</dd></div>`;
}

/** @param {{problems: any, config: any}} props */
function Splits({ problems, config }) {
  return html`<div class="scroll"><table class="cards">
    <thead><tr><th scope="col">Split</th><th scope="col">From</th><th scope="col" class="num">Problems</th><th scope="col" class="num">Refused</th><th scope="col" class="num">Set aside before</th></tr></thead>
    <tbody>${["train", "development", "held_out"].map((split) => html`<tr key=${split}><th scope="row">${SPLIT_NAMES[split]}</th><td class="wrap" data-label="From"><code>${config[split].spec}</code></td><td class="num" data-label="Problems">${number(problems[split].problems)}</td><td class="num" data-label="Refused">${number(problems[split].refused)}</td><td class="num" data-label="Set aside before">${number(problems[split].set_aside)}</td></tr>`)}</tbody>
  </table></div>`;
}

/** @param {{selection: any}} props */
function Selected({ selection }) {
  const dropped = Object.entries(selection.dropped);
  const families = Object.entries(selection.coverage?.family ?? {}).sort(([, a], [, b]) => a[0] / a[1] - b[0] / b[1]);
  return html`
    ${dropped.length > 0 && html`<${Details} summary=${`Why ${number(selection.trajectories_found - selection.trajectories_selected)} of ${plural(selection.trajectories_found, "trajectory", "trajectories")} were left out`}>
      <div class="scroll"><table><thead><tr><th scope="col">Reason</th><th scope="col" class="num">Trajectories</th></tr></thead><tbody>${dropped.map(([reason, count]) => html`<tr key=${reason}><th scope="row">${reason}</th><td class="num">${number(/** @type {number} */ (count))}</td></tr>`)}</tbody></table></div>
    <//>`}
    ${families.length > 0 && html`<${Details} summary="Coverage by kind of problem, the least first">
      <div class="scroll"><table><thead><tr><th scope="col">Kind</th><th scope="col" class="num">Solved</th><th scope="col" class="num">Share</th></tr></thead><tbody>${families.map(([family, [solved, all]]) => html`<tr key=${family}><th scope="row">${family || "not known"}</th><td class="num">${number(solved)} of ${number(all)}</td><td class="num">${percent(solved / all)}</td></tr>`)}</tbody></table></div>
    <//>`}
    <p class="small muted">Data set <span class="version">${selection.dataset}</span>, SHA-256 of its file <span class="version">${selection.sha256}</span></p>`;
}

/** @param {{round: Round}} props */
export function Trainings({ round }) {
  const made = [["Policy", round.metrics.policy], ["PRM", round.metrics.prm]].filter(([, each]) => each);
  if (made.length === 0) return null;
  const validation = round.metrics.policy?.validation;
  return html`<section class="panel stack tight" aria-label="Trainings">
    <h2>Trained</h2>
    <div class="scroll"><table class="cards">
      <thead><tr><th scope="col">Model</th><th scope="col">Version</th><th scope="col" class="num">Steps</th><th scope="col" class="num">Tokens</th><th scope="col" class="num">Epochs</th><th scope="col" class="num">Last loss</th><th scope="col" class="num">Took</th><th scope="col" class="num">Tokens/s</th></tr></thead>
      <tbody>${made.map(([name, each]) => html`<tr key=${name}><th scope="row">${name}</th><td class="whole"><a class="version" href=${modelPath(each.version)}>${each.version}</a></td><td class="num" data-label="Steps">${number(each.steps)}</td><td class="num" data-label="Tokens">${number(each.tokens)}</td><td class="num" data-label="Epochs">${number(each.epochs)}</td><td class="num" data-label="Last loss">${number(each.final_loss, 4)}</td><td class="num" data-label="Took">${duration(each.seconds)}</td><td class="num" data-label="Tokens/s">${number(each.tokens_per_second)}</td></tr>`)}</tbody>
    </table></div>
    ${validation && html`<p class="small muted">Of the policy the weights of step ${number(validation.step)} were taken, ${percent(validation.scale)} of the way from the base: a token of ${plural(validation.programs, "program")} that it was not trained on costs ${number(validation.nll, 3)} nats, with the base ${number(validation.base_nll, 3)}.</p>`}
  </section>`;
}

/** @param {{round: Round}} props */
export function RoundConfig({ round }) {
  return html`<section class="panel"><${Details} summary="Configuration"><${Code} text=${JSON.stringify(round.config, null, 2)} label="configuration" /><//></section>`;
}

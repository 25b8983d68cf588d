// @ts-check
/** The answer of a search: as it forms, and once it is there with its program, what stands behind it and what it cost. */
import { html, useState } from "../vendor/preact-htm.js";
import { api } from "../lib/api.js";
import { requestOfResult } from "../lib/ask-form.js";
import { LEVELS, duration, number, percent, plural, score } from "../lib/format.js";
import { PythonCode } from "../lib/python-code.js";
import { modelPath } from "../lib/rounds.js";
import { curlOf, curlOfSearch, pythonOf } from "../lib/snippets.js";
import { Badge, Button, Code, CopyButton, Meter, Scroll, Spinner, toast, useModel, wordsOf } from "../lib/ui.js";
import { findingsOf } from "../lib/verdict.js";

/** @typedef {import("../lib/search-model.js").SearchModel} SearchModel */
/** @typedef {import("../lib/search-model.js").SearchResult} SearchResult */
/** @typedef {{text: string, stdout: string, stderr?: string, prm_score: number|null, id?: string}} Step */

const MOST_ANSWERS = 8;
/** @type {Record<string, import("../lib/format.js").Tone>} */
const LEVEL_TONES = { reference: "good", agreement: "good", execution: "warn", none: "bad" };

/** @param {{model: SearchModel, result: SearchResult}} props */
export function AnswerTab({ model, result }) {
  useModel(model);
  return html`<div class="answer-columns">
    <div class="stack">
      ${model.over ? html`<${Final} result=${result} />` : html`<${Forming} model=${model} result=${result} />`}
      ${!model.over && html`<${Answers} model=${model} final=${null} />`}
      <${Program} model=${model} result=${result} />
      ${model.over && html`<${Answers} model=${model} final=${result.answer} />`}
    </div>
    <div class="stack">
      ${result.verification && html`<${Behind} of=${result.verification} />`}
      <${Cost} model=${model} result=${result} />
      <${Elsewhere} result=${result} />
    </div>
  </div>`;
}

/** @param {{result: SearchResult}} props */
function Final({ result }) {
  if (result.answer === null) return null;
  const of = result.verification;
  return html`<section class="panel stack tight answer-final" aria-label="Answer">
    <div class="row between"><h2>Answer</h2><${CopyButton} text=${result.answer} label="Copy the answer" /></div>
    <p class="answer-text wrap">${result.answer}</p>
    ${of && html`<div class="row"><${Badge} tone=${LEVEL_TONES[of.level] ?? "plain"}>${LEVELS[of.level] ?? of.level}<//>${of.confidence !== null && html`<span class="muted">${percent(of.confidence)} probable</span>`}</div>`}
  </section>`;
}

/** What is known before the end. @param {{model: SearchModel, result: SearchResult}} props */
function Forming({ model, result }) {
  const leading = model.answers[0];
  const nodes = Math.max(0, model.nodes.size - 1);
  let tokens = 0;
  for (const node of model.nodes.values()) tokens += node.tokens;
  const budget = result.asked?.budget;
  return html`<section class="panel stack" aria-label="Answer so far">
    <div class="row between"><h2>Answer so far</h2>${result.state === "queued" && html`<${Spinner} label="Waiting for a worker" />`}</div>
    ${leading ? html`<p class="answer-text wrap">${leading.answer}</p><p class="muted">Leads with ${plural(leading.votes, "vote")}. It is verified at the end of the search.</p>` : html`<p class="muted">${nodes > 0 ? "Steps are tried; none has ended in an answer yet." : "No step has been tried yet."}</p>`}
    ${result.reason && html`<p class="muted wrap">${result.reason}</p>`}
    ${budget && html`<div class="answer-budget">
      <${Used} label="Tokens" used=${tokens} most=${budget.tokens} />
      <${Used} label="Nodes" used=${nodes} most=${budget.nodes} />
    </div>`}
  </section>`;
}

/** @param {{label: string, used: number, most: number}} props */
function Used({ label, used, most }) {
  return html`<div class="stack tight"><span class="muted small">${label} of the budget</span><${Meter} value=${most > 0 ? used / most : 0} label=${`${label} used`} text=${`${number(used)} of ${number(most)}`} /></div>`;
}

/** All answers with their votes. @param {{model: SearchModel, final: string|null}} props */
function Answers({ model, final }) {
  const shown = model.answers.slice(0, MOST_ANSWERS);
  if (shown.length === 0 || (model.over && shown.length < 2)) return null;
  const more = model.answers.length - shown.length;
  return html`<section class="panel stack tight" aria-label="Answers by votes">
    <h2>${model.over ? "All answers" : "Leading answers"}</h2>
    <${Scroll} label="Answers by votes, a table"><table>
      <thead><tr><th scope="col">Answer</th><th scope="col" class="num">Votes</th><th scope="col" class="answer-share">Share</th><th scope="col" class="num">Best PRM</th></tr></thead>
      <tbody>${shown.map((each) => html`<tr key=${each.answer}><td class="wrap">${each.answer}${model.over && final !== null && each.spellings.has(final) ? html` <${Badge} tone="accent">chosen<//>` : ""}</td><td class="num">${number(each.votes)}</td><td><${Meter} value=${each.share} label="Share of the votes" /></td><td class="num">${score(each.prm)}</td></tr>`)}</tbody>
    </table><//>
    ${more > 0 && html`<p class="muted small">and ${plural(more, "other answer")}</p>`}
  </section>`;
}

/** The program step by step: the answer's, otherwise of what leads, otherwise of what is tried now. @param {{model: SearchModel, result: SearchResult}} props */
function Program({ model, result }) {
  const { title, steps } = programOf(model, result);
  if (steps.length === 0) return null;
  return html`<section class="panel stack" aria-label="Program">
    <div class="row between"><h2>${title}</h2>${result.program !== null && html`<${CopyButton} text=${result.program} label="Copy the program" />`}</div>
    <ol class="answer-steps">${steps.map((step, index) => html`<${StepItem} key=${step.id ?? index} step=${step} number=${index + 1} />`)}</ol>
  </section>`;
}

/** @param {SearchModel} model @param {SearchResult} result @returns {{title: string, steps: Step[]}} */
function programOf(model, result) {
  if (result.answer !== null && result.steps.length > 0) return { title: "The program, step by step", steps: result.steps };
  const leading = model.answers[0]?.nodes.at(-1);
  if (leading !== undefined) return { title: "The program that leads", steps: model.pathTo(leading) };
  const newest = [...model.nodes.keys()].at(-1);
  if (newest === undefined) return { title: "", steps: [] };
  return { title: model.over ? "The last steps that were tried" : "Steps that are tried now", steps: model.pathTo(newest) };
}

/** @param {{step: Step, number: number}} props */
function StepItem({ step, number: place }) {
  return html`<li class="stack tight">
    <div class="row between"><h3>Step ${place}</h3>${step.prm_score !== null && html`<span class="row"><span class="muted small">PRM</span><span class="answer-prm"><${Meter} value=${step.prm_score} label=${`PRM score of step ${place}`} text=${score(step.prm_score)} /></span></span>`}</div>
    <div class="code"><pre tabindex="0" role="region" aria-label=${`Code of step ${place}`}><${PythonCode} text=${step.text} /></pre></div>
    ${step.stdout && html`<${Output} label="Printed" text=${step.stdout} place=${place} />`}
    ${step.stderr && html`<${Output} label="Errors" text=${step.stderr} place=${place} />`}
    ${!step.stdout && !step.stderr && html`<p class="muted small">Printed nothing.</p>`}
  </li>`;
}

/** @param {{label: string, text: string, place: number}} props */
function Output({ label, text, place }) {
  return html`<div class="answer-output"><span class="muted small">${label}</span><pre class="wrap" tabindex="0" role="region" aria-label=${`${label} by step ${place}`}>${text}</pre></div>`;
}

/** @param {{of: import("../lib/search-model.js").Verification}} props */
function Behind({ of }) {
  const signs = { good: "✓", warn: "!", bad: "✗", plain: "·" };
  const said = { good: "For it: ", warn: "Doubtful: ", bad: "Against it: ", plain: "" };
  return html`<section class="panel stack tight answer-behind" aria-label="What stands behind the answer">
    <h2>What stands behind it</h2>
    <ul class="answer-findings">${findingsOf(of).map((each) => html`<li key=${each.text} class=${each.tone}><span class="sign" aria-hidden="true">${signs[each.tone]}</span><span><span class="visually-hidden">${said[each.tone]}</span>${each.text}</span></li>`)}</ul>
  </section>`;
}

/** @param {{model: SearchModel, result: SearchResult}} props */
function Cost({ model, result }) {
  const { usage, models } = result;
  const named = Object.entries(models);
  if (!model.over && named.length === 0) return null;
  return html`<section class="panel stack tight" aria-label="Cost and models">
    <h2>${model.over ? "Cost and models" : "Models"}</h2>
    <dl class="terms">
      ${model.over && html`<dt>Generated</dt><dd>${plural(usage.policy.tokens, "token")} in ${plural(usage.policy.calls, "call")}</dd>
      <dt>Read</dt><dd>${plural(usage.policy.prompt_tokens, "prompt token")}</dd>
      <dt>Tree</dt><dd>${plural(usage.nodes, "node")}, ${plural(usage.rollouts, "rollout")}</dd>
      <dt>Scored</dt><dd>${plural(usage.prm.calls, "call")} of the PRM</dd>
      <dt>Executed</dt><dd>${plural(usage.sandbox.calls, "call")} of the sandbox, ${duration(usage.sandbox.seconds)}</dd>
      ${result.reason && html`<dt>Ended</dt><dd>${result.reason}</dd>`}
      <dt>Time</dt><dd>${duration(usage.wall_seconds)} worked on</dd>`}
      ${named.map(([part, version]) => html`<dt>${part === "prm" ? "PRM" : part === "policy" ? "Policy" : part}</dt><dd>${version.startsWith("prm1-") ? html`<code>${version}</code>` : html`<a href=${modelPath(version)}><code>${version}</code></a>`}</dd>`)}
    </dl>
  </section>`;
}

/** The search as files, and from code. @param {{result: SearchResult}} props */
function Elsewhere({ result }) {
  const [shown, setShown] = useState("curl");
  const request = requestOfResult(result);
  const texts = /** @type {Record<string, string>} */ ({ curl: curlOf(request), Python: pythonOf(request), "This search": curlOfSearch(result.id) });
  const proven = result.answer !== null && result.ended_at !== null;
  return html`<section class="panel stack tight" aria-label="The same from code">
    <h2>The same from code</h2>
    <div class="row" role="group" aria-label="What is shown">${Object.keys(texts).map((each) => html`<${Button} key=${each} small kind=${each === shown ? "plain" : "quiet"} aria-pressed=${each === shown ? "true" : "false"} onClick=${() => setShown(each)}>${each}<//>`)}</div>
    <${Code} text=${texts[shown] ?? ""} label=${shown === "This search" ? "the commands" : `the ${shown}`} wrap />
    <div class="row">
      ${proven && html`<${Download} path=${`search/${result.id}/proof`} name=${`proof-${result.id}.json`} label="Proof" title="Program, outputs, versions, hashes: ratchet verify checks it offline" />`}
      <${Download} path=${`search/${result.id}`} name=${`search-${result.id}.json`} label="JSON" title="The search as the API tells it" />
    </div>
  </section>`;
}

/** A file that only a key may fetch: through fetch, and a blob. @param {{path: string, name: string, label: string, title: string}} props */
function Download({ path, name, label, title }) {
  const [busy, setBusy] = useState(false);
  const save = async () => {
    setBusy(true);
    try {
      const url = URL.createObjectURL(await api.blob(path));
      const link = document.createElement("a");
      link.href = url;
      link.download = name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    } catch (error) {
      const { head, detail } = wordsOf(error);
      toast(`${label}: ${detail ?? head}`, "bad");
    } finally {
      setBusy(false);
    }
  };
  return html`<${Button} small title=${title} busy=${busy} onClick=${save}>Download ${label}<//>`;
}

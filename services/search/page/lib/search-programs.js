// @ts-check
/** The programs of searches, by answer: what independent trajectories wrote, with what each printed. */
import { html } from "../vendor/preact-htm.js";
import { api } from "./api.js";
import { number, plural, score } from "./format.js";
import { PythonCode } from "./python-code.js";
import { Details, ErrorBox, Spinner, useLoaded } from "./ui.js";

/** @typedef {{id: string, parent: string|null, text: string, stdout: string, stderr: string, prm_score: number|null, visits: number, answer: string|null, answer_group?: string|null}} Node */
/** @typedef {{search: string, steps: Node[], end: Node}} Program */

const MOST_PAGES = 5;
const MOST_PROGRAMS = 8;

/** @param {{searches: string[]}} props */
export function SearchPrograms({ searches }) {
  const { data, error, reload } = useLoaded((signal) => Promise.all(searches.map((each) => programsOf(each, signal))), [searches.join()]);
  if (error !== null) return html`<${ErrorBox} error=${error} retry=${reload} />`;
  if (data === null) return html`<${Spinner} label="Loading the trees" />`;
  const groups = byAnswer(data.flat());
  if (groups.length === 0) return html`<p class="muted">No trajectory gave an answer.</p>`;
  return html`<div class="stack">
    <p class="row small">${searches.map((each, place) => html`<a key=${each} href=${`#/search/${each}/tree`}>Tree of search ${place + 1}</a>`)}</p>
    ${groups.map(([answer, programs], place) => html`<${Details} key=${answer} open=${place === 0} summary=${html`<span>Answer <strong>${answer}</strong> <span class="muted">${plural(sum(programs), "rollout")}, ${plural(programs.length, "trajectory", "trajectories")}</span></span>`}><div class="stack">${programs.slice(0, MOST_PROGRAMS).map((each) => html`<${ProgramView} key=${`${each.search}${each.end.id}`} program=${each} />`)}${programs.length > MOST_PROGRAMS && html`<p class="muted small">And ${number(programs.length - MOST_PROGRAMS)} more: see the trees.</p>`}</div><//>`)}
  </div>`;
}

/** @param {{program: Program}} props */
function ProgramView({ program }) {
  const { search, steps, end } = program;
  return html`<div class="program">
    <div class="row between small"><a href=${`#/search/${search}/node/${encodeURIComponent(end.id)}`}>Its end in the tree</a><span class="muted">found ${plural(end.visits, "time")}, PRM ${score(end.prm_score)}</span></div>
    <div class="code"><pre tabindex="0" role="region" aria-label="Program"><${PythonCode} text=${steps.map((each) => each.text.replace(/\n+$/, "")).join("\n")} /></pre></div>
    <p class="small muted wrap">Printed: <code>${steps.map((each) => each.stdout).join("").trim() || "nothing"}</code></p>
  </div>`;
}

/** Every trajectory of a search that gave an answer. @param {string} search @param {AbortSignal} signal @returns {Promise<Program[]>} */
async function programsOf(search, signal) {
  /** @type {Map<string, Node>} */
  const nodes = new Map();
  let cursor = "";
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const found = await api.get(`/search/${encodeURIComponent(search)}/tree${cursor}`, { signal });
    for (const node of found.nodes) nodes.set(node.id, node);
    if (!found.next) break;
    cursor = `?cursor=${encodeURIComponent(found.next)}`;
  }
  return [...nodes.values()].filter((node) => node.answer !== null && node.visits > 0).map((end) => ({ search, steps: pathTo(end, nodes), end }));
}

/** @param {Node} end @param {Map<string, Node>} nodes */
function pathTo(end, nodes) {
  /** @type {Node[]} */
  const steps = [];
  for (let node = /** @type {Node|undefined} */ (end); node !== undefined; node = node.parent === null ? undefined : nodes.get(node.parent)) {
    if (node.parent !== null || node.text) steps.unshift(node);
  }
  return steps;
}

/** Programs by answer, as the first of most rollouts writes it; the answer of most rollouts first. @param {Program[]} programs @returns {[string, Program[]][]} */
function byAnswer(programs) {
  /** @type {Map<string, Program[]>} */
  const groups = new Map();
  for (const each of programs) {
    const group = each.end.answer_group ?? String(each.end.answer).trim();
    groups.set(group, [...(groups.get(group) ?? []), each]);
  }
  for (const group of groups.values()) group.sort((a, b) => b.end.visits - a.end.visits);
  return [...groups.values()].sort((a, b) => sum(b) - sum(a)).map((group) => [String(group[0].end.answer).trim(), group]);
}

/** @param {Program[]} programs */
const sum = (programs) => programs.reduce((all, each) => all + each.end.visits, 0);

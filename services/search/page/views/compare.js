// @ts-check
/** Two searches side by side, and only what differs: answer, cost, settings, program, scores, trees. Both are followed live. */
import { html, useEffect, useState } from "../vendor/preact-htm.js";
import { api } from "../lib/api.js";
import { requestOfResult } from "../lib/ask-form.js";
import { diffLines, linesOf, otherStrategies, outcomeFacts, partsOf, settingFacts } from "../lib/compare.js";
import { LEVELS, STRATEGIES, ago, number, percent, plural } from "../lib/format.js";
import { navigate } from "../lib/router.js";
import { useSearch } from "../lib/use-search.js";
import { Badge, Button, Empty, ErrorBox, Field, Spinner, StateBadge, useLoaded, useStyle, useTitle } from "../lib/ui.js";
import { ScoreCurves } from "./compare-scores.js";

/** @typedef {import("../lib/search-model.js").SearchModel} SearchModel */
/** @typedef {import("../lib/search-model.js").SearchResult} SearchResult */
/** @typedef {import("../lib/search-list.js").SearchSummary} SearchSummary */
/** @typedef {{model: SearchModel, result: SearchResult}} Side */

/** To choose from. */
const NEWEST = 100;
/** Lines without a difference that stay around one that has. */
const AROUND = 3;

/** @param {{query: URLSearchParams}} props `a`, `b`: ids. */
export function Compare({ query }) {
  useTitle("Compare");
  useStyle("compare");
  const [a, b] = [query.get("a") ?? "", query.get("b") ?? ""];
  const show = (/** @type {string} */ left, /** @type {string} */ right) => navigate(`/compare?${new URLSearchParams({ ...(left ? { a: left } : {}), ...(right ? { b: right } : {}) })}`);
  return html`<div class="view compare">
    <div class="head"><h1>Compare</h1></div>
    <${Choosing} a=${a} b=${b} show=${show} />
    ${a && b ? html`<${Pair} key=${`${a} ${b}`} a=${a} b=${b} />` : a || b ? html`<${Single} key=${a || b} id=${a || b} />` : html`<${Empty} title="Choose two searches"><p>Two searches of one problem, or one search and another strategy.</p><a class="button" href="#/history">Pick them in the history</a><//>`}
  </div>`;
}

/** @param {{a: string, b: string, show: (a: string, b: string) => void}} props */
function Choosing({ a, b, show }) {
  const list = useLoaded(async (signal) => /** @type {SearchSummary[]} */ ((await api.get(`searches?limit=${NEWEST}`, { signal })).searches), [a, b]);
  const known = list.data ?? [];
  const problem = known.find((each) => each.id === (a || b))?.problem;
  return html`<div class="panel compare-choose">
    <${Pick} label="Search A" id=${a} known=${known} problem=${problem} onPick=${(/** @type {string} */ id) => show(id, b)} />
    <${Button} class="compare-swap" disabled=${!a && !b} onClick=${() => show(b, a)}>Swap<//>
    <${Pick} label="Search B" id=${b} known=${known} problem=${problem} onPick=${(/** @type {string} */ id) => show(a, id)} />
    ${list.error && html`<div class="compare-failed"><${ErrorBox} title="The searches to choose from could not be loaded" error=${list.error} retry=${list.reload} /></div>`}
  </div>`;
}

/** @param {{label: string, id: string, known: SearchSummary[], problem: string|undefined, onPick: (id: string) => void}} props */
function Pick({ label, id, known, problem, onPick }) {
  const option = (/** @type {SearchSummary} */ each) => html`<option key=${each.id} value=${each.id} selected=${each.id === id}>${`${start(each.problem, 60)} · ${STRATEGIES[each.strategy]?.label ?? each.strategy} · ${each.answer === null ? "no answer" : start(each.answer, 20)} · ${ago(each.created_at)}`}</option>`;
  const same = known.filter((each) => each.problem === problem);
  const others = known.filter((each) => each.problem !== problem);
  const far = id !== "" && !known.some((each) => each.id === id);
  return html`<${Field} label=${label}>${(/** @type {any} */ control) => html`<select ...${control} value=${id} onChange=${(/** @type {any} */ e) => onPick(e.target.value)}>
    <option value="" selected=${id === ""}>Choose a search</option>
    ${far && html`<option value=${id} selected>${id}</option>`}
    ${same.length > 0 && html`<optgroup label="Of this problem">${same.map(option)}</optgroup>`}
    ${others.length > 0 && html`<optgroup label=${same.length > 0 ? "Of other problems" : "The newest searches"}>${others.map(option)}</optgroup>`}
  </select>`}<//>`;
}

/** One search alone: what it can be compared with. @param {{id: string}} props */
function Single({ id }) {
  const { model, error, restart } = useSearch(id, false);
  if (error) return html`<${ErrorBox} title="The search could not be loaded" error=${error} retry=${restart} />`;
  if (!model.result) return html`<${Spinner} label="Loading the search" />`;
  return html`<div class="stack"><div class="compare-sides"><${Card} name="A" side=${{ model, result: model.result }} /><${With} name="A" result=${model.result} /></div></div>`;
}

/** @param {{a: string, b: string}} props */
function Pair({ a, b }) {
  const [left, right] = [useSearch(a, false), useSearch(b, false)];
  const failed = [{ name: "A", of: left }, { name: "B", of: right }].filter((each) => each.of.error);
  if (failed.length > 0) return html`<div class="stack">${failed.map((each) => html`<${ErrorBox} key=${each.name} title=${`Search ${each.name} could not be loaded`} error=${each.of.error} retry=${each.of.restart} />`)}</div>`;
  if (!left.model.result || !right.model.result) return html`<${Spinner} label="Loading two searches" />`;
  const sides = { a: { model: left.model, result: left.model.result }, b: { model: right.model, result: right.model.result } };
  return html`<${Compared} ...${sides} />`;
}

/** @param {{a: Side, b: Side}} props */
function Compared({ a, b }) {
  const same = a.result.problem === b.result.problem;
  return html`<div class="stack compare-all">
    ${!same && html`<div class="box warn"><strong>These are two problems</strong><p>What differs may come from that alone.</p></div>`}
    <div class="compare-sides"><${Card} name="A" side=${a} other=${b} /><${Card} name="B" side=${b} other=${a} /></div>
    <${Facts} title="Outcome and cost" facts=${outcomeFacts(a.result, b.result)} />
    <${Facts} title="Settings" facts=${settingFacts(a.result, b.result)} />
    <${Programs} a=${a.result} b=${b.result} />
    <${ScoreCurves} a=${a.result.steps} b=${b.result.steps} />
    <${Trees} a=${a} b=${b} />
    <div class="compare-sides"><${With} name="A" result=${a.result} /><${With} name="B" result=${b.result} /></div>
  </div>`;
}

/** @param {{name: string, side: Side, other?: Side}} props */
function Card({ name, side: { model, result }, other }) {
  const leading = model.over ? result.answer : (model.answers[0]?.answer ?? null);
  const of = result.verification;
  const differs = other !== undefined && other.model.over && model.over && other.result.answer !== result.answer;
  return html`<section class=${`panel stack tight compare-card ${name.toLowerCase()}`} aria-label=${`Search ${name}`}>
    <div class="row between"><span class="row"><span class="compare-name">${name}</span><strong>${STRATEGIES[result.strategy]?.label ?? result.strategy}</strong></span><${StateBadge} state=${model.state ?? result.state} /></div>
    <a class="wrap" href=${`#/search/${result.id}`}>${start(result.problem, 200)}</a>
    <p class=${`compare-answer wrap ${differs ? "differs" : ""}`}>${leading === null ? html`<span class="muted">${model.over ? "No answer" : "No answer yet"}</span>` : leading}</p>
    <p class="row muted small">${of ? html`<span>${LEVELS[of.level] ?? of.level}</span>${of.confidence !== null && html`<span>${percent(of.confidence)} probable</span>`}` : html`<span>${model.over ? "Nothing stands behind it" : plural(Math.max(0, model.nodes.size - 1), "node")}</span>`}<span>${ago(result.created_at)}</span></p>
  </section>`;
}

/** A table of what differs; what does not is shown when it is asked for. @param {{title: string, facts: import("../lib/compare.js").Fact[]}} props */
function Facts({ title, facts }) {
  const [all, setAll] = useState(false);
  const differing = facts.filter((each) => each.differs);
  const shown = all ? facts : differing;
  const equal = facts.length - differing.length;
  return html`<section class="panel stack tight" aria-label=${title}>
    <div class="row between"><h2>${title}</h2>${equal > 0 && html`<${Button} small kind="quiet" aria-pressed=${all ? "true" : "false"} onClick=${() => setAll(!all)}>${all ? "Only what differs" : `${number(equal)} the same`}<//>`}</div>
    ${shown.length === 0 ? html`<p class="muted">Nothing differs.</p>` : html`<table class="compare-facts">
      <thead><tr><th scope="col"><span class="visually-hidden">What</span></th><th scope="col">A</th><th scope="col">B</th></tr></thead>
      <tbody>${shown.map((each) => html`<tr key=${each.label} class=${each.differs ? "" : "muted"}><th scope="row">${each.label}</th><${Value} text=${each.a} word=${each.ahead === "a" ? each.word : ""} /><${Value} text=${each.b} word=${each.ahead === "b" ? each.word : ""} /></tr>`)}</tbody>
    </table>`}
  </section>`;
}

/** @param {{text: string, word: string}} props */
function Value({ text, word }) {
  return html`<td class=${word ? "ahead" : ""}>${start(text, 300)}${word && html` <${Badge}>${word}<//>`}</td>`;
}

/** Programs line by line. @param {{a: SearchResult, b: SearchResult}} props */
function Programs({ a, b }) {
  const [all, setAll] = useState(false);
  if (a.steps.length === 0 && b.steps.length === 0) return null;
  const rows = diffLines(linesOf(a.steps), linesOf(b.steps));
  const equal = rows.every((row) => row.kind === "same");
  const shown = all ? rows.map((row) => ({ row, left: 0 })) : around(rows);
  return html`<section class="panel stack tight" aria-label="Programs">
    <div class="row between"><h2>Programs</h2>${!equal && (all || shown.some((each) => each.left > 0)) && html`<${Button} small kind="quiet" aria-pressed=${all ? "true" : "false"} onClick=${() => setAll(!all)}>${all ? "Only what differs" : "All lines"}<//>`}</div>
    ${equal ? html`<p class="muted">Both answers come from the same program.</p>` : html`<table class="compare-diff">
      <caption class="visually-hidden">The two programs, line by line</caption>
      <thead><tr><th scope="col">A: ${plural(a.steps.length, "step")}</th><th scope="col">B: ${plural(b.steps.length, "step")}</th></tr></thead>
      <tbody>${shown.map(({ row, left }, index) => (row === null ? html`<tr key=${index} class="gap"><td colspan="2">${plural(left, "line")} the same</td></tr>` : html`<${DiffLine} key=${index} row=${row} />`))}</tbody>
    </table>`}
  </section>`;
}

/**
 * Rows near a difference, and how many were left out between them.
 * @param {import("../lib/compare.js").DiffRow[]} rows @returns {{row: import("../lib/compare.js").DiffRow|null, left: number}[]}
 */
function around(rows) {
  const near = new Set(rows.flatMap((row, index) => (row.kind === "same" ? [] : Array.from({ length: 2 * AROUND + 1 }, (_, each) => index - AROUND + each))));
  /** @type {{row: import("../lib/compare.js").DiffRow|null, left: number}[]} */
  const shown = [];
  for (const [index, row] of rows.entries()) {
    const last = shown.at(-1);
    if (near.has(index)) shown.push({ row, left: 0 });
    else if (last && last.row === null) last.left += 1;
    else shown.push({ row: null, left: 1 });
  }
  return shown;
}

/** @param {{row: import("../lib/compare.js").DiffRow}} props */
function DiffLine({ row }) {
  const cell = (/** @type {"a"|"b"} */ name) => {
    const [own, other] = name === "a" ? [row.a, row.b] : [row.b, row.a];
    if (own === null) return html`<td class=${`${name} none`}></td>`;
    const sign = { same: "", changed: "changed: ", removed: "only in A: ", added: "only in B: " }[row.kind];
    const [start_, middle, end] = row.kind === "changed" && other !== null ? partsOf(own.text, other.text) : [own.text, "", ""];
    return html`<td class=${name}>${own.step !== null && html`<span class="compare-step">Step ${own.step}</span>`}<code>${sign && html`<span class="visually-hidden">${sign}</span>`}${start_}${middle && html`<mark>${middle}</mark>`}${end}</code></td>`;
  };
  return html`<tr class=${row.kind}>${cell("a")}${cell("b")}</tr>`;
}

/** The trees, loaded with what draws them. @param {{a: Side, b: Side}} props */
function Trees({ a, b }) {
  const [loaded, setLoaded] = useState(/** @type {{component: any}|null} */ (null));
  const [failure, setFailure] = useState(/** @type {unknown} */ (null));
  useStyle("tree");
  useEffect(() => {
    import("./compare-tree.js").then((module) => setLoaded({ component: module.SmallTree }), setFailure);
  }, []);
  return html`<section class="panel stack tight" aria-label="Trees">
    <h2>Trees</h2>
    ${failure ? html`<${ErrorBox} title="The trees' view could not be loaded" error=${failure} />` : html`<div class="compare-sides">${[{ name: "A", side: a }, { name: "B", side: b }].map(({ name, side }) => html`<div key=${name} class="stack tight"><div class="row between"><h3>${name}: ${plural(Math.max(side.result.usage.nodes, side.model.nodes.size - 1, 0), "node")}</h3><a href=${`#/search/${side.result.id}/tree`}>Open the tree</a></div>${loaded && html`<${loaded.component} model=${side.model} searchId=${side.result.id} name=${name} />`}</div>`)}</div>`}
  </section>`;
}

/** The same once more, with another strategy, and the comparison of both. @param {{name: string, result: SearchResult}} props */
function With({ name, result }) {
  const others = otherStrategies(result.strategy);
  const [strategy, setStrategy] = useState(others[0] ?? "mcts");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const run = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const search = await api.post("search", { ...requestOfResult(result), strategy });
      navigate(`/compare?${new URLSearchParams({ a: result.id, b: search.id })}`);
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  const tokens = result.asked?.budget.tokens;
  return html`<form class="panel stack tight" aria-label=${`Compare ${name} with another strategy`} onSubmit=${run}>
    <h2>Compare ${name} with…</h2>
    <div class="compare-with"><${Field} label="Strategy">${(/** @type {any} */ control) => html`<select ...${control} value=${strategy} onChange=${(/** @type {any} */ e) => setStrategy(e.target.value)}>${others.map((each) => html`<option key=${each} value=${each} selected=${each === strategy}>${STRATEGIES[each]?.label ?? each}</option>`)}</select>`}<//><${Button} type="submit" kind="primary" busy=${busy}>Run it<//></div>
    <p class="muted small">The same problem, seed and settings${tokens ? `, and the same budget of ${number(tokens)} tokens` : ""}.</p>
    ${error && html`<${ErrorBox} title="The search could not be begun" error=${error} />`}
  </form>`;
}

/** @param {string} text @param {number} most */
function start(text, most) {
  return text.length > most ? `${text.slice(0, most - 1).trimEnd()}…` : text;
}

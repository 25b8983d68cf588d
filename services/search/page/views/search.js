// @ts-check
/** One search: its frame, and its tabs. The answer stands here; the tree is loaded when it is looked at. */
import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { ApiError, api } from "../lib/api.js";
import { STRATEGIES, SEARCH_STATES, dateTime, duration, secondsBetween } from "../lib/format.js";
import { Badge, Button, Details, Empty, ErrorBox, Spinner, StateBadge, Tabs, announce, toast, useStyle, useTitle, wordsOf } from "../lib/ui.js";
import { useSearch } from "../lib/use-search.js";
import { endingOf } from "../lib/verdict.js";
import { AnswerTab } from "./answer-tab.js";

/** @typedef {import("../lib/search-model.js").SearchModel} SearchModel */
/** @typedef {import("../lib/search-model.js").SearchResult} SearchResult */

/** A problem that is longer is folded. */
const HEADING_CHARS = 220;
/** That a budget may have. */
const MOST_TOKENS = 10_000_000;

/** @param {{searchId: string, tab: "answer"|"tree", nodeId: string|null}} props */
export function Search({ searchId, tab, nodeId }) {
  useStyle("search");
  const { model, error, treeError, restart } = useSearch(searchId, tab === "tree");
  const { result } = model;
  useTitle(result ? `${short(result.problem, 60)}` : "Search");
  useAnnounced(model);
  if (error && !result) return html`<div class="view"><${Unknown} error=${error} retry=${restart} searchId=${searchId} /></div>`;
  if (!result) return html`<div class="view"><h1 class="visually-hidden">Search</h1><${Spinner} label="Loading the search" /></div>`;
  const at = `#/search/${encodeURIComponent(searchId)}`;
  const tabs = [
    { href: at, label: "Answer", current: tab === "answer" },
    { href: `${at}/tree`, label: treeLabel(model), current: tab === "tree" },
  ];
  return html`<div class=${`view search ${tab === "tree" ? "wide" : ""}`}>
    <${Head} model=${model} result=${result} searchId=${searchId} restart=${restart} />
    <${Tabs} label="Parts of the search" tabs=${tabs} />
    <div class="search-tab stack">
      ${error && html`<${ErrorBox} title="The search can no longer be followed" error=${error} retry=${restart} />`}
      ${treeError && html`<${ErrorBox} title="The tree could not be loaded" error=${treeError} retry=${restart} />`}
      ${(tab === "answer" || result.state === "failed") && html`<${Ending} result=${result} />`}
      ${tab === "answer" ? html`<${AnswerTab} model=${model} result=${result} />` : html`<${Tree} model=${model} searchId=${searchId} nodeId=${nodeId} />`}
    </div>
  </div>`;
}

/** @param {{model: SearchModel, result: SearchResult, searchId: string, restart: () => void}} props */
function Head({ model, result, searchId, restart }) {
  const long = result.problem.length > HEADING_CHARS;
  const strategy = STRATEGIES[result.strategy]?.label ?? result.strategy;
  return html`<div class="search-head stack tight">
    <h1>${long ? short(result.problem, HEADING_CHARS) : result.problem}</h1>
    ${long && html`<${Details} summary="The whole problem"><p class="wrap">${result.problem}</p><//>`}
    <div class="row between">
      <div class="row">
        <${StateBadge} state=${result.state} />
        <${Connection} model=${model} />
        <${Elapsed} result=${result} />
        <span class="muted" title=${STRATEGIES[result.strategy]?.what}>${strategy}</span>
        <span class="muted">Seed ${result.seed}</span>
        <span class="muted">${dateTime(result.created_at)}</span>
        ${result.parent && html`<a href=${`#/search/${encodeURIComponent(result.parent.search)}/node/${encodeURIComponent(result.parent.node)}`}>Branched from another search</a>`}
      </div>
      <${Actions} model=${model} result=${result} searchId=${searchId} restart=${restart} />
    </div>
  </div>`;
}

/** Whether events arrive. @param {{model: SearchModel}} props */
function Connection({ model }) {
  if (model.over) return null;
  if (model.connection === "connected") return html`<${Badge} tone="good" dot live title="Events arrive as they happen">Live<//>`;
  if (model.connection === "reconnecting") return html`<${Badge} tone="warn" dot title="The connection broke off; it is taken up where it ended">Reconnecting<//>`;
  return html`<${Badge} dot>Connecting<//>`;
}

/** @param {{result: SearchResult}} props */
function Elapsed({ result }) {
  const [now, setNow] = useState(Date.now);
  const running = result.state === "running";
  useEffect(() => {
    if (!running) return;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [running]);
  if (result.started_at === null) return null;
  const seconds = secondsBetween(result.started_at, result.ended_at, now);
  return html`<span class="muted">${running ? duration(Math.round(seconds ?? 0) || 1).replace(".0", "") : duration(seconds)}</span>`;
}

/** @param {{model: SearchModel, result: SearchResult, searchId: string, restart: () => void}} props */
function Actions({ model, result, searchId, restart }) {
  const [busy, setBusy] = useState(false);
  const act = async (/** @type {() => Promise<void>} */ work) => {
    setBusy(true);
    try {
      await work();
    } catch (error) {
      const { head, detail } = wordsOf(error);
      toast(detail ?? head, "bad");
    } finally {
      setBusy(false);
    }
  };
  const cancel = () => act(async () => {
    const told = await api.del(`search/${encodeURIComponent(searchId)}`);
    // While a worker holds it, its end comes with the events.
    if (SEARCH_STATES[told.state] && told.ended_at !== null) model.setResult(told);
    toast("The search is called off; its best answer so far is kept.");
  });
  return html`<div class="row">
    ${!model.over && html`<${Button} kind="danger" small busy=${busy} onClick=${cancel}>Cancel<//>`}
    ${result.state === "failed" && html`<${Button} kind="primary" small busy=${busy} onClick=${() => act(() => retry(searchId, restart))}>Retry<//>`}
    ${canGoOn(result) && html`<${Button} small busy=${busy} title="With twice the budget, from where it stopped" onClick=${() => act(() => extend(result, restart))}>Search on<//>`}
    ${model.over && html`<a class="button small" href=${`#/?from=${encodeURIComponent(searchId)}`}>Ask again</a>`}
  </div>`;
}

/** @param {string} searchId @param {() => void} restart */
async function retry(searchId, restart) {
  await api.post(`search/${encodeURIComponent(searchId)}/retry`);
  toast("The search is taken up again.");
  restart();
}

/** Whether more budget may help: it is over, not failed, and not verified. @param {SearchResult} result */
function canGoOn(result) {
  return (result.asked?.budget.tokens ?? MOST_TOKENS) < MOST_TOKENS && ["answered_unverified", "budget_exhausted", "cancelled"].includes(result.state);
}

/** @param {SearchResult} result @param {() => void} restart */
async function extend(result, restart) {
  if (!result.asked) return;
  await api.post(`search/${encodeURIComponent(result.id)}/extend`, { tokens: Math.min(MOST_TOKENS, 2 * result.asked.budget.tokens) });
  toast("The search goes on with twice its budget.");
  restart();
}

/** Why a search ended without what was hoped for, and what can be done. @param {{result: SearchResult}} props */
function Ending({ result }) {
  const ending = endingOf(result);
  if (ending === null) return null;
  return html`<div class=${`box ${ending.tone}`}><strong>${ending.title}</strong>${ending.text && html`<p class="wrap">${ending.text}</p>`}</div>`;
}

/** @param {{error: unknown, retry: () => void, searchId: string}} props */
function Unknown({ error, retry: again, searchId }) {
  const none = error instanceof ApiError && (error.status === 404 || error.status === 422);
  if (!none) return html`<h1 class="visually-hidden">Search</h1><${ErrorBox} title="The search could not be loaded" error=${error} retry=${again} />`;
  return html`<h1 class="visually-hidden">Search</h1><${Empty} title="There is no such search">
    <p>No search here has the id <code class="wrap">${short(searchId, 60)}</code>, or it was begun with another key.</p>
    <div class="row"><a class="button" href="#/history">All searches</a><a class="button primary" href="#/">Ask something</a></div>
  <//>`;
}

/** The tree's tab, loaded when it is first looked at. @param {{model: SearchModel, searchId: string, nodeId: string|null}} props */
function Tree({ model, searchId, nodeId }) {
  const [loaded, setLoaded] = useState(/** @type {{component: any}|null} */ (null));
  const [failure, setFailure] = useState(/** @type {unknown} */ (null));
  useEffect(() => {
    let gone = false;
    import("../tree/tree-tab.js").then(
      (module) => gone || setLoaded({ component: module.TreeTab }),
      (error) => gone || setFailure(error),
    );
    return () => {
      gone = true;
    };
  }, []);
  if (failure) return html`<${ErrorBox} title="The tree's view could not be loaded" error=${failure} retry=${() => location.reload()} />`;
  if (!loaded) return html`<${Spinner} label="Loading the tree" />`;
  return html`<${loaded.component} model=${model} searchId=${searchId} nodeId=${nodeId} />`;
}

/** Say changes of the state, and the first answer, to who does not see them. @param {SearchModel} model */
function useAnnounced(model) {
  const said = useRef("");
  const state = model.state;
  const answer = model.result?.answer ?? null;
  const leading = model.answers.length > 0 && !model.over;
  const text = state === null ? "" : [
    `Search: ${SEARCH_STATES[state]?.label ?? state}.`,
    answer !== null ? `The answer is ${short(answer, 100)}.` : leading ? "There is a first answer." : "",
    model.connection === "reconnecting" && !model.over ? "The connection broke off; reconnecting." : "",
  ].filter(Boolean).join(" ");
  useEffect(() => {
    if (text && text !== said.current) announce(text);
    said.current = text;
  }, [text]);
}

/** @param {SearchModel} model */
function treeLabel(model) {
  const known = Math.max(model.nodes.size - 1, model.result?.usage.nodes ?? 0);
  return known > 0 ? `Tree (${known.toLocaleString("en-US")})` : "Tree";
}

/** @param {string} text @param {number} most */
function short(text, most) {
  return text.length > most ? `${text.slice(0, most - 1).trimEnd()}…` : text;
}

// @ts-check
/** All searches, the newest first: found again, compared, called off, taken up again. The filters stand in the address. */
import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { api } from "../lib/api.js";
import { LEVELS, SEARCH_STATES, STRATEGIES, ago, dateTime, percent, plural } from "../lib/format.js";
import { navigate } from "../lib/router.js";
import { filtersOf, queryOf, useSearchList } from "../lib/search-list.js";
import { isOver } from "../lib/search-model.js";
import { Badge, Button, Empty, ErrorBox, Spinner, StateBadge, toast, useStyle, useTitle, wordsOf } from "../lib/ui.js";

/** @typedef {import("../lib/search-list.js").SearchSummary} SearchSummary */
/** @typedef {import("../lib/search-list.js").Filters} Filters */

/** Typing has to rest so long before it is looked for, ms. */
const REST_MS = 300;
/** @type {Record<string, import("../lib/format.js").Tone>} */
const LEVEL_TONES = { reference: "good", agreement: "good", execution: "warn", none: "bad" };
/** @type {Record<string, string>} */
const LEVEL_WORDS = { reference: "Reference", agreement: "Agreement", execution: "Execution", none: "None" };

/** @param {{query: URLSearchParams}} props */
export function History({ query }) {
  useTitle("History");
  useStyle("history");
  const filters = filtersOf(query);
  const list = useSearchList(filters);
  const [picked, setPicked] = useState(/** @type {string[]} */ ([]));
  const pick = (/** @type {string} */ id, /** @type {boolean} */ on) => setPicked((before) => [...before.filter((each) => each !== id), ...(on ? [id] : [])].slice(-2));
  const narrowed = queryOf(filters) !== "";
  return html`<div class="view history">
    <div class="head"><h1>History</h1><p class="muted" role="status">${countWords(list.rows.length, list.next !== null, list.loading)}</p></div>
    <${FilterBar} filters=${filters} rows=${list.rows} />
    ${list.error && list.rows.length === 0 ? html`<${ErrorBox} title="The searches could not be loaded" error=${list.error} retry=${list.reload} />` : null}
    ${list.rows.length > 0 && html`<${Rows} rows=${list.rows} picked=${picked} pick=${pick} update=${list.update} />`}
    ${!list.error && !list.loading && list.rows.length === 0 && list.next === null && html`<${Nothing} narrowed=${narrowed} />`}
    <${More} list=${list} />
    ${picked.length > 0 && html`<${Picked} picked=${picked} clear=${() => setPicked([])} />`}
  </div>`;
}

/** @param {number} count @param {boolean} more @param {boolean} loading */
function countWords(count, more, loading) {
  if (loading && count === 0) return "Loading";
  if (count === 0) return "";
  return more ? `The newest ${count} so far` : plural(count, "search", "searches");
}

/** @param {{filters: Filters, rows: SearchSummary[]}} props */
function FilterBar({ filters, rows }) {
  const [text, setText] = useState(filters.text);
  const written = useRef(filters.text);
  useEffect(() => {
    // The address was changed by something else than this box: a link, or the browser's way back.
    if (filters.text !== written.current) setText(filters.text);
    written.current = filters.text;
  }, [filters.text]);
  const show = (/** @type {Partial<Filters>} */ change) => navigate(`/history${queryOf({ ...filters, ...change })}`, { replace: true });
  useEffect(() => {
    if (text.trim() === filters.text) return;
    const timer = setTimeout(() => {
      written.current = text.trim();
      show({ text: text.trim() });
    }, REST_MS);
    return () => clearTimeout(timer);
  }, [text, filters]);
  const models = useModels(rows, filters.model);
  const clear = () => {
    setText("");
    navigate("/history", { replace: true });
  };
  const stop = (/** @type {Event} */ event) => event.preventDefault();
  return html`<form class="history-filters" role="search" aria-label="Find searches" onSubmit=${stop}>
    <label class="history-find"><span class="visually-hidden">Text in the problem or the answer</span><input type="search" placeholder="Text in the problem or the answer" maxlength="200" value=${text} onInput=${(/** @type {any} */ e) => setText(e.target.value)} /></label>
    <${Choice} label="State" value=${filters.state} options=${Object.entries(SEARCH_STATES).map(([value, { label }]) => [value, label])} onChoose=${(/** @type {string} */ state) => show({ state })} />
    <${Choice} label="Level" value=${filters.level} options=${Object.entries(LEVEL_WORDS)} onChoose=${(/** @type {string} */ level) => show({ level })} />
    <${Choice} label="Strategy" value=${filters.strategy} options=${Object.entries(STRATEGIES).map(([value, { label }]) => [value, label])} onChoose=${(/** @type {string} */ strategy) => show({ strategy })} />
    <${Choice} label="Model" value=${filters.model} options=${models.map((each) => [each, each])} onChoose=${(/** @type {string} */ model) => show({ model })} />
    ${queryOf(filters) !== "" && html`<${Button} kind="quiet" onClick=${clear}>Clear<//>`}
  </form>`;
}

/** Models to choose from: those of the rows, and those that are registered where the key may see them. @param {SearchSummary[]} rows @param {string} chosen */
function useModels(rows, chosen) {
  const [registered, setRegistered] = useState(/** @type {string[]} */ ([]));
  useEffect(() => {
    const left = new AbortController();
    const load = async () => ((await api.get("models", { signal: left.signal })).models ?? []).map((/** @type {any} */ each) => String(each.version));
    // Only an operator's key may list them.
    load().then(setRegistered, () => {});
    return () => left.abort();
  }, []);
  const seen = rows.flatMap((row) => Object.values(row.models ?? {}));
  return [...new Set([...(chosen ? [chosen] : []), ...seen, ...registered])].sort();
}

/** @param {{label: string, value: string, options: [string, string][], onChoose: (value: string) => void}} props */
function Choice({ label, value, options, onChoose }) {
  const known = value === "" || options.some(([each]) => each === value);
  const offered = known ? options : [...options, [value, value]];
  return html`<label class="history-choice"><span class="visually-hidden">${label}</span><select class=${value ? "chosen" : ""} value=${value} onChange=${(/** @type {any} */ e) => onChoose(e.target.value)}>
    <option value="" selected=${value === ""}>${label}: any</option>
    ${offered.map(([each, words]) => html`<option key=${each} value=${each} selected=${each === value}>${words}</option>`)}
  </select></label>`;
}

/**
 * A table; at a phone's width a row is a card. Roles are said, as a changed display takes them away.
 * @param {{rows: SearchSummary[], picked: string[], pick: (id: string, on: boolean) => void, update: (row: SearchSummary) => void}} props
 */
function Rows({ rows, picked, pick, update }) {
  const head = ["Compare", "Problem", "State", "Answer", "Behind it", "Strategy", "Begun", "Actions"];
  return html`<div class="panel history-list"><table role="table" aria-label="Searches">
    <thead role="rowgroup"><tr role="row">${head.map((each) => html`<th key=${each} role="columnheader" scope="col"><span class=${each === "Compare" || each === "Actions" ? "visually-hidden" : ""}>${each}</span></th>`)}</tr></thead>
    <tbody role="rowgroup">${rows.map((row) => html`<${Row} key=${row.id} row=${row} picked=${picked.includes(row.id)} pick=${pick} update=${update} />`)}</tbody>
  </table></div>`;
}

/** @param {{row: SearchSummary, picked: boolean, pick: (id: string, on: boolean) => void, update: (row: SearchSummary) => void}} props */
function Row({ row, picked, pick, update }) {
  const models = Object.entries(row.models ?? {}).map(([part, version]) => `${part}: ${version}`).join("\n");
  const level = row.level ? html`<${Badge} tone=${LEVEL_TONES[row.level] ?? "plain"} title=${LEVELS[row.level] ?? row.level}>${LEVEL_WORDS[row.level] ?? row.level}<//>` : html`<span class="muted">–</span>`;
  return html`<tr role="row" class=${picked ? "picked" : ""}>
    <td role="cell" class="history-pick"><input type="checkbox" checked=${picked} aria-label=${`Compare: ${start(row.problem, 60)}`} onChange=${(/** @type {any} */ e) => pick(row.id, e.target.checked)} /></td>
    <td role="cell" class="history-problem"><a href=${`#/search/${row.id}`} title=${row.problem}>${start(row.problem, 160)}</a>
      ${row.parent && html`<a class="small history-parent" href=${`#/search/${row.parent.search}/node/${encodeURIComponent(row.parent.node)}`}>branched from another search</a>`}</td>
    <td role="cell" class="history-state"><${StateBadge} state=${row.state} /></td>
    <td role="cell" class="history-answer">${row.answer === null ? html`<span class="muted"><span class="visually-hidden">no answer</span><span aria-hidden="true">–</span></span>` : html`<code title=${row.answer}>${start(row.answer, 40)}</code>`}</td>
    <td role="cell" class="history-level">${level}${row.confidence != null && html` <span class="muted nowrap">${percent(row.confidence)}</span>`}</td>
    <td role="cell" class="history-strategy nowrap" title=${models}>${STRATEGIES[row.strategy]?.label ?? row.strategy}</td>
    <td role="cell" class="history-begun nowrap"><time class="muted" datetime=${row.created_at} title=${dateTime(row.created_at)}>${ago(row.created_at)}</time></td>
    <td role="cell" class="history-actions"><${Actions} row=${row} update=${update} /></td>
  </tr>`;
}

/** @param {{row: SearchSummary, update: (row: SearchSummary) => void}} props */
function Actions({ row, update }) {
  const [busy, setBusy] = useState(false);
  const act = async (/** @type {() => Promise<any>} */ ask, /** @type {string} */ said) => {
    setBusy(true);
    try {
      const { state, answer, ended_at } = await ask();
      update({ ...row, state, answer, ended_at });
      toast(said);
    } catch (error) {
      const { head, detail } = wordsOf(error);
      toast(detail ?? head, "bad");
    } finally {
      setBusy(false);
    }
  };
  const path = `search/${encodeURIComponent(row.id)}`;
  const of = start(row.problem, 60);
  if (!isOver(row.state)) return html`<${Button} small kind="danger" busy=${busy} aria-label=${`Cancel: ${of}`} onClick=${() => act(() => api.del(path), "The search is called off; its best answer so far is kept.")}>Cancel<//>`;
  if (row.state === "failed") return html`<${Button} small busy=${busy} aria-label=${`Retry: ${of}`} onClick=${() => act(() => api.post(`${path}/retry`), "The search is taken up again.")}>Retry<//>`;
  return null;
}

/** The way to earlier ones: a button, which presses itself when it comes into sight. @param {{list: ReturnType<typeof useSearchList>}} props */
function More({ list }) {
  const button = useRef(/** @type {HTMLElement|null} */ (null));
  const { next, loading, error, more } = list;
  useEffect(() => {
    if (next === null || loading || error || !button.current) return;
    const observer = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && more(), { rootMargin: "300px" });
    observer.observe(button.current);
    return () => observer.disconnect();
  }, [next, loading, error, more]);
  if (error && list.rows.length > 0) return html`<div class="history-more"><${ErrorBox} title="More could not be loaded" error=${error} retry=${more} /></div>`;
  if (loading) return html`<div class="history-more"><${Spinner} label="Loading searches" /></div>`;
  if (next === null) return null;
  return html`<div class="history-more" ref=${button}><${Button} onClick=${more}>Earlier searches<//></div>`;
}

/** @param {{picked: string[], clear: () => void}} props */
function Picked({ picked, clear }) {
  const [a, b] = picked;
  const href = `#/compare?${new URLSearchParams({ a: a ?? "", ...(b ? { b } : {}) })}`;
  return html`<div class="history-picked" role="region" aria-label="Picked searches">
    <span>${b ? "Two picked" : "One picked: pick another, or compare it with another strategy"}</span>
    <a class="button primary small" href=${href}>Compare</a><${Button} small kind="quiet" onClick=${clear}>Clear<//>
  </div>`;
}

/** @param {{narrowed: boolean}} props */
function Nothing({ narrowed }) {
  if (narrowed) return html`<${Empty} title="No search is like that"><p>None of the searches has all of these properties.</p><a class="button" href="#/history">Show all</a><//>`;
  return html`<${Empty} title="Nothing has been asked yet"><p>Every search is kept here, across restarts.</p><a class="button primary" href="#/">Ask something</a><//>`;
}

/** @param {string} text @param {number} most */
function start(text, most) {
  return text.length > most ? `${text.slice(0, most - 1).trimEnd()}…` : text;
}

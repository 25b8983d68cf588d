// @ts-check
/** The list of searches, a page after another, kept up to date while somebody looks at it. */
import { useCallback, useEffect, useMemo, useRef, useState } from "../vendor/preact-htm.js";
import { api } from "./api.js";
import { isOver } from "./search-model.js";

/**
 * @typedef {object} SearchSummary One line; the API's SearchSummary.
 * @property {string} id
 * @property {string} state
 * @property {string} problem Its first 200 characters.
 * @property {string} strategy
 * @property {string|null} answer
 * @property {string|null} level
 * @property {number|null} confidence
 * @property {Record<string, string>} models
 * @property {{search: string, node: string}|null} parent
 * @property {string} created_at
 * @property {string|null} ended_at
 */
/** @typedef {{text: string, state: string, level: string, strategy: string, model: string}} Filters "" is any. */

export const FILTERS = /** @type {(keyof Filters)[]} */ (["text", "state", "level", "strategy", "model"]);
const PAGE = 50;
const REFRESH_MS = 4000;
/** The service looks at so many searches a page: where few are as asked for, pages are empty. So many are asked for in a row. */
const MOST_EMPTY_PAGES = 10;
/** Searches under way that are asked for one by one, as they are not among the newest. */
const MOST_ASKED = 10;

/** The filters of an address. @param {URLSearchParams} query @returns {Filters} */
export function filtersOf(query) {
  return /** @type {Filters} */ (Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""])));
}

/** The filters as an address has them: "?state=failed", or "". @param {Filters} filters */
export function queryOf(filters) {
  const query = new URLSearchParams(FILTERS.filter((name) => filters[name]).map((name) => [name, filters[name]]));
  return query.size > 0 ? `?${query}` : "";
}

/**
 * Rows that were known, with what is told of them now; new ones come first. The service's order is kept: ids grow with time.
 * @param {SearchSummary[]} known @param {SearchSummary[]} told @returns {SearchSummary[]}
 */
export function merged(known, told) {
  const byId = new Map(known.map((each) => [each.id, each]));
  for (const each of told) byId.set(each.id, each);
  return [...byId.values()].sort((one, other) => (one.id < other.id ? 1 : one.id > other.id ? -1 : 0));
}

/** @typedef {{rows: SearchSummary[], next: string|null, loading: boolean, error: unknown}} Loaded */

/** @type {Loaded} */
const BEFORE = { rows: [], next: null, loading: true, error: null };

/** @param {Filters} filters */
export function useSearchList(filters) {
  const asked = queryOf(filters);
  const [state, setState] = useState(BEFORE);
  const [turn, setTurn] = useState(0);
  const now = useRef(state);
  now.current = state;
  const running = useRef(new AbortController());
  const load = useCallback(async (/** @type {string|null} */ cursor) => {
    const { signal } = running.current;
    setState((before) => ({ ...before, loading: true, error: null }));
    try {
      const page = await pageOf(asked, cursor, signal);
      setState((before) => ({ rows: merged(before.rows, page.rows), next: page.next, loading: false, error: null }));
    } catch (error) {
      if (!signal.aborted) setState((before) => ({ ...before, loading: false, error }));
    }
  }, [asked]);
  useEffect(() => {
    running.current = new AbortController();
    const { signal } = running.current;
    setState(BEFORE);
    void load(null);
    const timer = setInterval(() => void refresh(asked, now, setState, signal), REFRESH_MS);
    return () => {
      running.current.abort();
      clearInterval(timer);
    };
  }, [load, turn]);
  const more = useCallback(() => void (now.current.loading || load(now.current.next)), [load]);
  const reload = useCallback(() => setTurn((count) => count + 1), []);
  const update = useCallback((/** @type {SearchSummary} */ row) => setState((before) => ({ ...before, rows: merged(before.rows, [row]) })), []);
  return useMemo(() => ({ ...state, more, reload, update }), [state, more, reload, update]);
}

/** The next rows. @param {string} asked @param {string|null} cursor @param {AbortSignal} signal */
async function pageOf(asked, cursor, signal) {
  for (let page = 1; ; page += 1) {
    const query = new URLSearchParams(asked);
    query.set("limit", String(PAGE));
    if (cursor !== null) query.set("cursor", cursor);
    const told = await api.get(`searches?${query}`, { signal });
    if (told.searches.length > 0 || told.next === null || page === MOST_EMPTY_PAGES) return { rows: /** @type {SearchSummary[]} */ (told.searches), next: /** @type {string|null} */ (told.next) };
    cursor = told.next;
  }
}

/**
 * What is new, and how those under way stand. A service that is away is asked again next time: the rows stay.
 * @param {string} asked @param {{current: Loaded}} now @param {(change: (before: Loaded) => Loaded) => void} setState @param {AbortSignal} signal
 */
async function refresh(asked, now, setState, signal) {
  if (document.hidden || now.current.loading || now.current.error) return;
  try {
    const told = (await api.get(`searches?${withLimit(asked)}`, { signal })).searches;
    const names = new Set(told.map((/** @type {SearchSummary} */ each) => each.id));
    const others = now.current.rows.filter((row) => !isOver(row.state) && !names.has(row.id)).slice(0, MOST_ASKED);
    const later = await Promise.all(others.map((row) => stateOf(row, signal)));
    if (!signal.aborted) setState((before) => (before.loading ? before : { ...before, rows: merged(before.rows, [...told, ...later]) }));
  } catch {
    // Asked again in a moment.
  }
}

/** @param {SearchSummary} row @param {AbortSignal} signal @returns {Promise<SearchSummary>} */
async function stateOf(row, signal) {
  const { state, answer, ended_at, models, verification } = await api.get(`search/${encodeURIComponent(row.id)}`, { signal });
  return { ...row, state, answer, ended_at, models, level: verification?.level ?? null, confidence: verification?.confidence ?? null };
}

/** @param {string} asked */
function withLimit(asked) {
  const query = new URLSearchParams(asked);
  query.set("limit", String(PAGE));
  return query;
}

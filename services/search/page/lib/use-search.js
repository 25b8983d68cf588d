// @ts-check
/** One search kept up to date while its view is open: loaded, followed to its end, and its tree where events were missed. */
import { useCallback, useEffect, useState } from "../vendor/preact-htm.js";
import { ApiError, api } from "./api.js";
import { follow } from "./events.js";
import { createSearchModel } from "./search-model.js";
import { useModel } from "./ui.js";

/** The tree of a search that is over is loaded with it up to this size; a larger one when it is looked at. */
const MOST_NODES = 1000;
const PAUSE_MS = 3000;
/** The frame of a search counts nodes only so often: the tree inside has better things to do. */
const NODES_MS = 500;

/** @typedef {import("./search-model.js").SearchModel} SearchModel */

/**
 * @param {string} searchId
 * @param {boolean} wholeTree The view shows the tree: load it whatever its size.
 */
export function useSearch(searchId, wholeTree) {
  const [model, setModel] = useState(createSearchModel);
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const [treeError, setTreeError] = useState(/** @type {unknown} */ (null));
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const left = new AbortController();
    const fresh = createSearchModel();
    setModel(fresh);
    setError(null);
    keep(fresh, searchId, left.signal).catch((failure) => left.signal.aborted || setError(failure));
    return () => left.abort();
  }, [searchId, turn]);
  useModel(model, NODES_MS);
  const size = model.result?.usage.nodes ?? 0;
  const missing = model.gap || (model.over && model.nodes.size === 0 && size > 0 && (wholeTree || size <= MOST_NODES));
  useEffect(() => {
    if (!missing) return;
    const left = new AbortController();
    setTreeError(null);
    loadTree(model, searchId, left.signal).catch((failure) => left.signal.aborted || setTreeError(failure));
    return () => left.abort();
  }, [model, missing]);
  const restart = useCallback(() => setTurn((count) => count + 1), []);
  return { model, error, treeError, restart };
}

/**
 * Load it, and follow it until it is over.
 * @param {SearchModel} model @param {string} searchId @param {AbortSignal} signal
 */
async function keep(model, searchId, signal) {
  const path = `search/${encodeURIComponent(searchId)}`;
  model.setResult(await api.get(path, { signal }));
  if (model.over) return;
  const refresh = async () => {
    try {
      const result = await api.get(path, { signal });
      // A worker has begun: only now it is known when. What has ended since is told by the stream.
      if (!model.over) model.setResult(result);
    } catch {
      // The stream goes on without it.
    }
  };
  await follow(searchId, {
    signal,
    onEvent: (event) => {
      model.apply(event);
      if (event.kind === "state" && event.data.state === "running") void refresh();
    },
    onState: (state) => model.setConnection(state),
  });
  // A stream that had told its end before brings no result.
  if (!signal.aborted && !model.over) model.setResult(await api.get(path, { signal }));
}

/** @param {SearchModel} model @param {string} searchId @param {AbortSignal} signal */
async function loadTree(model, searchId, signal) {
  /** @type {string|null} */
  let cursor = null;
  do {
    const query = new URLSearchParams({ limit: "1000", ...(cursor === null ? {} : { cursor }) });
    const page = await patiently(() => api.get(`search/${encodeURIComponent(searchId)}/tree?${query}`, { signal }), signal);
    model.loadTree([page]);
    cursor = page.next;
  } while (cursor !== null);
}

/** Ask again while the service is away. @template T @param {() => Promise<T>} ask @param {AbortSignal} signal */
async function patiently(ask, signal, tries = 3) {
  for (let left = tries; ; left -= 1) {
    try {
      return await ask();
    } catch (error) {
      const passes = error instanceof ApiError && (error.status === 0 || error.status >= 500 || error.status === 429);
      if (!passes || left <= 1 || signal.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, (error.retryAfter ?? 0) * 1000 || PAUSE_MS));
    }
  }
}

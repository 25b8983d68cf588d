// @ts-check
/** The view that the address names: all behind its "#". Paths are `/search/ID`, parameters follow a "?". */
import { useEffect, useState } from "../vendor/preact-htm.js";

/** @typedef {{path: string, parts: string[], query: URLSearchParams}} Route `parts`: the path's, decoded. */

/** The route that the address names now. @returns {Route} */
export function currentRoute() {
  const hash = location.hash.replace(/^#/, "") || "/";
  const [path, query] = [hash.split("?", 1)[0] ?? "/", hash.slice(hash.indexOf("?") + 1)];
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { path: path || "/", parts, query: new URLSearchParams(hash.includes("?") ? query : "") };
}

/**
 * Go there.
 * @param {string} path `/search/ID`
 * @param {{replace?: boolean}} [options] replace: no step of the browser's history.
 */
export function navigate(path, { replace = false } = {}) {
  if (replace) {
    history.replaceState(null, "", `#${path}`);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = path;
  }
}

/** The route, and a new drawing whenever it changes. */
export function useRoute() {
  const [route, setRoute] = useState(currentRoute);
  useEffect(() => {
    const changed = () => setRoute(currentRoute());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

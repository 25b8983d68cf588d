// @ts-check
/**
 * The API key: taken from the address (`#/?key=…`, and removed from it), otherwise typed in. It is kept in this
 * browser's localStorage, for this address alone, until it is forgotten or replaced.
 */

const NAME = "ratchet.key";
/** @type {string|null} */
let held = null;
/** @type {Set<() => void>} */
const listeners = new Set();

/** The key, or null where none is known. */
export function currentKey() {
  if (held === null) {
    try {
      held = localStorage.getItem(NAME);
    } catch {
      // A browser that keeps nothing: the key lives as long as the page.
    }
  }
  return held;
}

/** Keep this key; null forgets it. @param {string|null} key */
export function keepKey(key) {
  held = key;
  asked = false;
  try {
    if (key === null) localStorage.removeItem(NAME);
    else localStorage.setItem(NAME, key);
  } catch {
    // As above.
  }
  for (const listener of listeners) listener();
}

let asked = false;

/** A call needs a key that is in force: ask for one, once until another one is kept. */
export function keyRefused() {
  if (asked) return;
  asked = true;
  document.dispatchEvent(new Event("ratchet:key"));
}

/** Be told when the key changes; returns what ends it. @param {() => void} listener */
export function onKey(listener) {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

/** Take the key out of the address, so that it stands in no history and no screenshot. Before anything else runs. */
export function takeKeyFromAddress() {
  const hash = location.hash.replace(/^#/, "");
  const [path = "", query = ""] = hash.split(/\?(.*)/s, 2);
  const parameters = new URLSearchParams(query);
  const key = parameters.get("key");
  if (key === null) return;
  parameters.delete("key");
  const rest = parameters.toString();
  history.replaceState(null, "", `${location.pathname}${location.search}#${path || "/"}${rest ? `?${rest}` : ""}`);
  if (key.trim()) keepKey(key.trim());
}

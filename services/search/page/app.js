// @ts-check
/** The page: its frame, and the view that the address names. Views are loaded when they are asked for. */
import { html, render, useEffect, useErrorBoundary, useRef, useState } from "./vendor/preact-htm.js";
import { KeyDialog } from "./lib/key-dialog.js";
import { currentKey, onKey, takeKeyFromAddress } from "./lib/key.js";
import { useRoute } from "./lib/router.js";
import { Button, Empty, ErrorBox, Spinner, Toasts, useTitle } from "./lib/ui.js";

/** @typedef {import("./lib/router.js").Route} Route */
/** @typedef {{load: () => Promise<any>, name: string, props: Record<string, any>, section: string}} View */

const SECTIONS = [
  { path: "/", label: "Ask" },
  { path: "/history", label: "History" },
  { path: "/compare", label: "Compare" },
  { path: "/rounds", label: "Rounds" },
  { path: "/models", label: "Models" },
  { path: "/evaluations", label: "Evaluations" },
];

/** The view of a route; null: there is none. @param {Route} route @returns {View|null} */
function viewOf({ parts, query }) {
  const [first, id, part, rest] = parts;
  const of = (/** @type {() => Promise<any>} */ load, /** @type {string} */ name, /** @type {string} */ section, props = {}) => ({ load, name, section, props: { query, ...props } });
  if (first === undefined) return of(() => import("./views/ask.js"), "Ask", "/");
  if (first === "search" && id && (part === undefined || part === "tree" || (part === "node" && rest))) {
    const tab = part === undefined ? "answer" : "tree";
    return of(() => import("./views/search.js"), "Search", "/history", { searchId: id, tab, nodeId: part === "node" ? rest : null });
  }
  if (first === "rounds" && id && part === "quarantine") return of(() => import("./views/quarantine.js"), "Quarantine", "/rounds", { roundId: id });
  if (first === "rounds" && id) return of(() => import("./views/round.js"), "Round", "/rounds", { roundId: id });
  if (parts.length > 1) return null;
  if (first === "history") return of(() => import("./views/history.js"), "History", "/history");
  if (first === "compare") return of(() => import("./views/compare.js"), "Compare", "/compare");
  if (first === "rounds") return of(() => import("./views/rounds.js"), "Rounds", "/rounds");
  if (first === "models") return of(() => import("./views/models.js"), "Models", "/models");
  if (first === "evaluations") return of(() => import("./views/evaluations.js"), "Evaluations", "/evaluations");
  return null;
}

function App() {
  const route = useRoute();
  const [keyAsked, setKeyAsked] = useState(false);
  const [keyed, setKeyed] = useState(0);
  const main = useRef(/** @type {HTMLElement|null} */ (null));
  const view = viewOf(route);
  useEffect(() => {
    const asked = () => setKeyAsked(true);
    document.addEventListener("ratchet:key", asked);
    const end = onKey(() => setKeyed((count) => count + 1));
    return () => {
      document.removeEventListener("ratchet:key", asked);
      end();
    };
  }, []);
  useEffect(takeKeyFromAddress, [route]);
  useFocusOnView(main, view === null ? "nothing" : `${view.name} ${view.props.searchId ?? view.props.roundId ?? ""}`);
  const skip = (/** @type {Event} */ event) => {
    event.preventDefault();
    main.current?.focus();
    main.current?.scrollIntoView();
  };
  return html`
    <a class="button primary skip" href="#main" onClick=${skip}>Skip to the content</a>
    <${Header} section=${view?.section ?? ""} path=${route.path} onKeyAsked=${() => setKeyAsked(true)} />
    <main id="main" class="frame-main" tabindex="-1" ref=${main}>
      ${view === null ? html`<${Nothing} />` : html`<${Guarded} key=${`${view.name} ${view.props.searchId ?? view.props.roundId ?? ""} ${keyed}`} view=${view} />`}
    </main>
    <div id="announcer" class="visually-hidden" role="status" aria-live="polite"></div>
    <${Toasts} />
    ${keyAsked && html`<${KeyDialog} onClose=${() => setKeyAsked(false)} />`}
  `;
}

/** @param {{section: string, path: string, onKeyAsked: () => void}} props */
function Header({ section, path, onKeyAsked }) {
  const [open, setOpen] = useState(false);
  useEffect(() => setOpen(false), [path]);
  const keyed = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Escape") setOpen(false);
  };
  // The button stands before what it opens: so the keyboard comes from one to the other.
  return html`<header class=${`frame-head ${open ? "open" : ""}`} onKeyDown=${keyed}>
    <a class="brand" href="#/"><img src="page/icon.svg" alt="" />Ratchet</a>
    <${Button} class="menu" kind="quiet" aria-expanded=${open ? "true" : "false"} aria-controls="sections" onClick=${() => setOpen(!open)}>Menu<//>
    <nav id="sections" aria-label="Sections">${SECTIONS.map((each) => html`<a key=${each.path} href=${`#${each.path}`} aria-current=${each.path === section ? (each.path === path ? "page" : "true") : undefined}>${each.label}</a>`)}</nav>
    <div class="tools">
      <${Button} kind="quiet" onClick=${onKeyAsked}>Key<//>
      <${ThemeButton} />
    </div>
  </header>`;
}

function ThemeButton() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme);
  useEffect(() => {
    const observer = new MutationObserver(() => setTheme(document.documentElement.dataset.theme));
    observer.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    return () => observer.disconnect();
  }, []);
  const other = theme === "dark" ? "light" : "dark";
  const change = () => {
    const ofSystem = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    try {
      // Back to what the system says is no choice of its own: the page follows it again.
      if (other === ofSystem) localStorage.removeItem("ratchet.theme");
      else localStorage.setItem("ratchet.theme", other);
    } catch {
      // A browser that keeps nothing stays with the system's.
    }
    document.dispatchEvent(new Event("ratchet:theme"));
  };
  const sun = html`<path d="M12 7.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9ZM12 2v2.5M12 19.5V22M2 12h2.5M19.5 12H22M4.9 4.9l1.8 1.8M17.3 17.3l1.8 1.8M4.9 19.1l1.8-1.8M17.3 6.7l1.8-1.8" />`;
  const moon = html`<path d="M20 14.5A8 8 0 0 1 9.5 4a8 8 0 1 0 10.5 10.5Z" />`;
  return html`<${Button} kind="quiet" aria-label=${`Change to the ${other} theme`} title=${`Change to the ${other} theme`} onClick=${change}><svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${other === "light" ? sun : moon}</svg><//>`;
}

/** A view, or why it is not there. A view that breaks takes nothing else with it. @param {{view: View}} props */
function Guarded({ view }) {
  const [broken, reset] = useErrorBoundary();
  const [loaded, setLoaded] = useState(/** @type {{component: any}|null} */ (null));
  const [failure, setFailure] = useState(/** @type {unknown} */ (null));
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let gone = false;
    setFailure(null);
    view.load().then(
      (module) => gone || setLoaded({ component: module[view.name] }),
      (error) => gone || setFailure(error),
    );
    return () => {
      gone = true;
    };
  }, [view.name, turn]);
  const again = () => {
    reset();
    setTurn(turn + 1);
  };
  if (broken) return html`<div class="view"><${ErrorBox} title="This view failed" error=${broken} retry=${again} /></div>`;
  if (failure) return html`<div class="view"><${ErrorBox} title="This view could not be loaded" error=${failure} retry=${() => location.reload()} /></div>`;
  if (loaded === null) return html`<div class="view"><${Spinner} label="Loading" /></div>`;
  return html`<${loaded.component} ...${view.props} />`;
}

function Nothing() {
  useTitle("Not found");
  return html`<div class="view"><h1 class="visually-hidden">Not found</h1><${Empty} title="There is no such view"><p>The address may have been cut.</p><a class="button" href="#/">Ask something</a><//></div>`;
}

/**
 * A new view begins at its top, and with the focus: who hears the page hears where they are.
 * @param {{current: HTMLElement|null}} main @param {string} name
 */
function useFocusOnView(main, name) {
  const first = useRef(true);
  useEffect(() => {
    if (first.current) {
      first.current = false;
      return;
    }
    scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [name]);
}

takeKeyFromAddress();
currentKey();
const app = document.getElementById("app");
if (app) {
  app.replaceChildren();
  render(html`<${App} />`, app);
}

// @ts-check
/** What every view is made of. Text is always text: nothing here, or anywhere in the page, turns a string into markup. */
import { html, useCallback, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { ApiError } from "./api.js";
import { SEARCH_STATES, percent } from "./format.js";

/** @typedef {import("./format.js").Tone} Tone */
/** @typedef {any} Children */

/**
 * @param {{kind?: "plain"|"primary"|"danger"|"quiet", small?: boolean, busy?: boolean, type?: "button"|"submit", disabled?: boolean, onClick?: (event: Event) => void, children?: Children, [name: string]: any}} props
 */
export function Button({ class: more = "", kind = "plain", small = false, busy = false, type = "button", disabled = false, onClick, children, ...rest }) {
  // A busy button stays where the keyboard's focus is, and takes no second press.
  return html`<button ...${rest} type=${type} class=${`button ${kind} ${small ? "small" : ""} ${more}`} disabled=${disabled} aria-disabled=${busy ? "true" : undefined} onClick=${busy ? swallow : onClick}>${busy && html`<${Spinner} />`}${children}</button>`;
}

/** @param {{tone?: Tone, dot?: boolean, live?: boolean, children?: Children, [name: string]: any}} props */
export function Badge({ tone = "plain", dot = false, live = false, children, ...rest }) {
  return html`<span ...${rest} class=${`badge ${tone}`}>${(dot || live) && html`<span class=${`dot ${live ? "live" : ""}`} aria-hidden="true"></span>`}${children}</span>`;
}

/** The state of a search. @param {{state: string}} props */
export function StateBadge({ state }) {
  const { label, tone } = SEARCH_STATES[state] ?? { label: state, tone: /** @type {Tone} */ ("plain") };
  return html`<${Badge} tone=${tone} dot live=${state === "running"}>${label}<//>`;
}

/** A share from 0 to 1 as a bar with its number. @param {{value: number|null, label: string, tone?: Tone, text?: string}} props */
export function Meter({ value, label, tone = "accent", text }) {
  const share = value === null ? 0 : Math.max(0, Math.min(1, value));
  const shown = text ?? percent(value);
  return html`<span class=${`meter ${tone}`} role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="1" aria-valuenow=${share} aria-valuetext=${shown}><span class="track"><span class="fill" style=${{ width: `${share * 100}%` }}></span></span><span class="value" aria-hidden="true">${shown}</span></span>`;
}

/** @param {{label?: string}} props */
export function Spinner({ label }) {
  return html`<span class="spinner" role=${label ? "status" : undefined}>${label}</span>`;
}

/**
 * A dialog over the page; Escape and the button close it. The browser keeps the focus inside and gives it back.
 * @param {{title: string, onClose: () => void, children?: Children, actions?: Children, wide?: boolean}} props
 */
export function Dialog({ title, onClose, children, actions, wide = false }) {
  const box = useRef(/** @type {HTMLDialogElement|null} */ (null));
  const id = useId("dialog");
  useEffect(() => {
    const dialog = box.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  const cancelled = (/** @type {Event} */ event) => {
    event.preventDefault();
    onClose();
  };
  return html`<dialog ref=${box} class=${`dialog ${wide ? "wide" : ""}`} aria-labelledby=${id} onCancel=${cancelled}>
    <div class="dialog-body">
      <div class="row between"><h2 id=${id}>${title}</h2><${Button} kind="quiet" small onClick=${onClose}>Close<//></div>
      ${children}
      ${actions && html`<div class="actions">${actions}</div>`}
    </div>
  </dialog>`;
}

/** Parts of a view that have addresses of their own. @param {{label: string, tabs: {href: string, label: string, current: boolean}[]}} props */
export function Tabs({ label, tabs }) {
  return html`<nav class="tabs" aria-label=${label}>${tabs.map((tab) => html`<a key=${tab.href} href=${tab.href} aria-current=${tab.current ? "page" : undefined}>${tab.label}</a>`)}</nav>`;
}

/** What may be wider than the screen, as a table; the keyboard can scroll it. @param {{label: string, children?: Children}} props */
export function Scroll({ label, children }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>${children}</div>`;
}

/** What went wrong, in words, and a way on. @param {{error: unknown, retry?: () => void, title?: string}} props */
export function ErrorBox({ error, retry, title }) {
  const { head, detail, fields, after } = wordsOf(error);
  return html`<div class="box bad" role="alert">
    <strong>${title ?? head}</strong>
    ${detail && html`<p class="wrap">${detail}</p>`}
    ${fields.length > 0 && html`<ul>${fields.map((each) => html`<li><code>${each.field}</code>: ${each.message}</li>`)}</ul>`}
    ${after !== null && html`<p>Try again in ${after} s.</p>`}
    ${retry && html`<${Button} small onClick=${retry}>Try again<//>`}
  </div>`;
}

/**
 * An error in words: a heading, what is wrong, and the fields that it names.
 * @param {unknown} error @returns {{head: string, detail: string|null, fields: {field: string, message: string}[], after: number|null}}
 */
export function wordsOf(error) {
  if (error instanceof ApiError) {
    const named = (error.detail ?? "").startsWith("The request is not valid.");
    const detail = named && error.errors.length > 0 ? null : error.detail;
    return { head: error.status ? `${error.title} (${error.status})` : error.title, detail, fields: error.errors, after: error.retryAfter };
  }
  const detail = error instanceof Error ? error.message : String(error);
  return { head: "Something went wrong in this page", detail, fields: [], after: null };
}

/** @param {{title: string, children?: Children}} props */
export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2>${children}</div>`;
}

/** @param {{summary: Children, open?: boolean, children?: Children, onToggle?: (open: boolean) => void}} props */
export function Details({ summary, open = false, children, onToggle }) {
  const toggled = (/** @type {any} */ event) => onToggle?.(event.currentTarget.open);
  return html`<details class="fold" open=${open} onToggle=${toggled}><summary>${summary}</summary>${children}</details>`;
}

/**
 * A label, its control, a hint and what is wrong with it, tied together for those who hear the page.
 * `children` is a function of the control's properties: id, aria-describedby, aria-invalid.
 * @param {{label: Children, hint?: Children, error?: string|null, children: (control: Record<string, any>) => any}} props
 */
export function Field({ label, hint, error = null, children }) {
  const id = useId("field");
  const described = [hint ? `${id}-hint` : "", error ? `${id}-error` : ""].filter(Boolean).join(" ");
  return html`<div class="field">
    <label for=${id}>${label}</label>
    ${children({ id, "aria-describedby": described || undefined, "aria-invalid": error ? "true" : undefined })}
    ${hint && html`<span class="hint" id=${`${id}-hint`}>${hint}</span>`}
    ${error && html`<span class="error" id=${`${id}-error`}>${error}</span>`}
  </div>`;
}

/** Text in the shape of code, with a button that copies it. @param {{text: string, label: string, wrap?: boolean, copy?: boolean}} props */
export function Code({ text, label, wrap = false, copy = true }) {
  return html`<div class=${`code ${copy ? "copies" : ""}`}><pre class=${wrap ? "wrap" : ""} tabindex="0" role="region" aria-label=${label}><code>${text}</code></pre>${copy && html`<${CopyButton} text=${text} label=${`Copy ${label}`} />`}</div>`;
}

/** @param {{text: string, label?: string}} props */
export function CopyButton({ text, label = "Copy" }) {
  const [said, setSaid] = useState("Copy");
  const copy = async () => {
    setSaid((await copied(text)) ? "Copied" : "Select it and copy");
    setTimeout(() => setSaid("Copy"), 2000);
  };
  return html`<${Button} small aria-label=${said === "Copy" ? label : said} onClick=${copy}>${said}<//>`;
}

/** Put text on the clipboard; false where the browser lets no page do so. @param {string} text */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Not over plain HTTP to another machine: there the old way still works.
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  try {
    return document.execCommand("copy");
  } finally {
    area.remove();
  }
}

/** @typedef {{id: number, text: string, tone: Tone}} ToastText */
/** @type {ToastText[]} */
let toasts = [];
/** @type {Set<() => void>} */
const readers = new Set();
let made = 0;

/** Say something for a few seconds, on the screen and to screen readers. @param {string} text @param {Tone} [tone] */
export function toast(text, tone = "plain") {
  made += 1;
  const id = made;
  toasts = [...toasts, { id, text, tone }];
  for (const reader of readers) reader();
  setTimeout(() => {
    toasts = toasts.filter((each) => each.id !== id);
    for (const reader of readers) reader();
  }, 6000);
}

/** Where toasts stand; app.js draws it once. */
export function Toasts() {
  const [, draw] = useState(0);
  useEffect(() => {
    const changed = () => draw((/** @type {number} */ count) => count + 1);
    readers.add(changed);
    return () => void readers.delete(changed);
  }, []);
  return html`<div class="toasts" role="status" aria-live="polite">${toasts.map((each) => html`<div key=${each.id} class=${`toast ${each.tone}`}>${each.text}</div>`)}</div>`;
}

/** Tell screen readers, and nobody else. app.js holds the region. @param {string} text */
export function announce(text) {
  const region = document.getElementById("announcer");
  if (region) region.textContent = text;
}

/** The page's title, and its heading's. @param {string} title */
export function useTitle(title) {
  useEffect(() => {
    document.title = title ? `${title} · Ratchet` : "Ratchet";
  }, [title]);
}

/**
 * Load something, again when `inputs` change or `reload` is called; what comes late for earlier inputs is dropped.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load @param {unknown[]} inputs
 * @returns {{data: T|null, error: unknown, loading: boolean, reload: () => void}}
 */
export function useLoaded(load, inputs) {
  const [state, setState] = useState(/** @type {{data: T|null, error: unknown, loading: boolean}} */ ({ data: null, error: null, loading: true }));
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const left = new AbortController();
    setState((before) => ({ ...before, loading: true }));
    load(left.signal).then(
      (data) => left.signal.aborted || setState({ data, error: null, loading: false }),
      (error) => left.signal.aborted || setState((before) => ({ data: before.data, error, loading: false })),
    );
    return () => left.abort();
  }, [...inputs, turn]);
  const reload = useCallback(() => setTurn((count) => count + 1), []);
  return { ...state, reload };
}

/**
 * Draw again when the model changes, at most once a frame.
 * @param {import("./search-model.js").SearchModel} model
 * @param {number} [pause] ms that news of single nodes and answers may wait; all else is drawn at once.
 */
export function useModel(model, pause = 0) {
  const [version, setVersion] = useState(model.version);
  useEffect(() => {
    let frame = 0;
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    let timer;
    const draw = () => {
      frame = 0;
      clearTimeout(timer);
      timer = undefined;
      setVersion(model.version);
    };
    const end = model.subscribe(({ kind }) => {
      if (pause > 0 && (kind === "node" || kind === "answers")) timer ??= setTimeout(draw, pause);
      else frame ||= requestAnimationFrame(draw);
    });
    setVersion(model.version);
    return () => {
      end();
      cancelAnimationFrame(frame);
      clearTimeout(timer);
    };
  }, [model, pause]);
  return version;
}

let ids = 0;

/** An id for an element that stays the same while it is drawn. @param {string} kind */
export function useId(kind) {
  const id = useRef("");
  if (!id.current) {
    ids += 1;
    id.current = `${kind}-${ids}`;
  }
  return id.current;
}

/** A view's own style sheet; it is loaded once and stays. @param {string} name Of the file in style/, without its end. */
export function useStyle(name) {
  const [ready, setReady] = useState(() => document.querySelector(`link[data-style="${name}"][data-ready]`) !== null);
  useEffect(() => {
    if (ready) return;
    let link = /** @type {HTMLLinkElement|null} */ (document.querySelector(`link[data-style="${name}"]`));
    if (!link) {
      link = document.createElement("link");
      link.rel = "stylesheet";
      link.href = new URL(`../style/${name}.css`, import.meta.url).href;
      link.dataset.style = name;
      document.head.append(link);
    }
    const element = link;
    const done = () => {
      element.dataset.ready = "";
      setReady(true);
    };
    element.addEventListener("load", done);
    // A view without its colours is better than none.
    element.addEventListener("error", done);
    return () => {
      element.removeEventListener("load", done);
      element.removeEventListener("error", done);
    };
  }, [name]);
  return ready;
}

/** @param {Event} event */
function swallow(event) {
  event.preventDefault();
}

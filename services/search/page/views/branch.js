// @ts-check
/** Go on from a node in a new search: as it is, with its step edited, or past it, never to take it again. */
import { html, useRef, useState } from "../vendor/preact-htm.js";
import { ApiError, api } from "../lib/api.js";
import { number } from "../lib/format.js";
import { navigate } from "../lib/router.js";
import { Button, Code, Dialog, ErrorBox, Field, useStyle } from "../lib/ui.js";

/** @typedef {{id: string, text: string, state: string, answer?: string|null}} BranchNode */
/** @typedef {"go_on"|"edit"|"forbid"} Way */
/** @typedef {{text: string, tokens: string, seconds: string, seed: string}} Typed */

const ROOT = "root";
const INDENT = "    ";
/** The control of each field of the API. @type {Record<string, keyof Typed>} */
const CONTROLS = { "edit.text": "text", edit: "text", "budget.tokens": "tokens", "budget.seconds": "seconds", seed: "seed" };

/** The ways that a node leaves open. @param {BranchNode} node @returns {{way: Way, label: string, what: string}[]} */
export function waysFrom(node) {
  const root = node.id === ROOT;
  const ended = node.state === "failed" || (node.answer ?? null) !== null;
  /** @type {{way: Way, label: string, what: string, open: boolean}[]} */
  const all = [
    { way: "go_on", label: "Go on", what: root ? "Search the problem again from its beginning." : "Keep the steps up to this one, and search on below it.", open: root || !ended },
    { way: "edit", label: "Edit this step", what: "Your text takes the step’s place; it is run, and the search goes on below it.", open: !root },
    { way: "forbid", label: "Forbid this step", what: "Go on from the step before it, and never take this one there, however it is written.", open: !root },
  ];
  return all.filter((each) => each.open);
}

/**
 * The body of `POST /search/{id}/branch`; what is blank is left as it was.
 * @param {BranchNode} node @param {Way} way @param {Typed} typed @returns {Record<string, any>}
 */
export function branchOf(node, way, typed) {
  const budget = { ...numeric("tokens", typed.tokens), ...numeric("seconds", typed.seconds) };
  return {
    node: node.id,
    ...(way === "edit" ? { edit: { text: typed.text } } : {}),
    ...(way === "forbid" ? { forbid: true } : {}),
    ...(Object.keys(budget).length > 0 ? { budget } : {}),
    ...numeric("seed", typed.seed),
  };
}

/** What is no number goes as it is: the service says what is wrong with it. @param {string} name @param {string} value */
function numeric(name, value) {
  const written = value.trim();
  if (written === "") return {};
  return { [name]: Number.isFinite(Number(written)) ? Number(written) : written };
}

/**
 * The API's complaints by control; null where one belongs to none.
 * @param {unknown} error @returns {Partial<Record<keyof Typed, string>>|null}
 */
export function complaintsBy(error) {
  if (!(error instanceof ApiError) || error.errors.length === 0) return null;
  /** @type {Partial<Record<keyof Typed, string>>} */
  const found = {};
  for (const { field, message } of error.errors) {
    const control = CONTROLS[field];
    if (!control) return null;
    found[control] = message;
  }
  return found;
}

/** @param {{search: {id: string, seed: number}, node: BranchNode, onClose: () => void}} props */
export function BranchDialog({ search, node, onClose }) {
  useStyle("branch");
  const ways = waysFrom(node);
  const [way, setWay] = useState(/** @type {Way} */ (ways[0]?.way ?? "edit"));
  const [typed, setTyped] = useState(/** @type {Typed} */ ({ text: node.text, tokens: "", seconds: "", seed: String(search.seed + 1) }));
  const [complaints, setComplaints] = useState(/** @type {Partial<Record<keyof Typed, string>>} */ ({}));
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const [busy, setBusy] = useState(false);
  // A press that is repeated after a lost answer begins no second search.
  const key = useRef({ body: "", id: "" });
  const form = useRef(/** @type {HTMLFormElement|null} */ (null));
  const set = (/** @type {keyof Typed} */ name) => (/** @type {string} */ value) => {
    setTyped((before) => ({ ...before, [name]: value }));
    setComplaints((before) => ({ ...before, [name]: undefined }));
  };
  const begin = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (busy) return;
    setError(null);
    const body = branchOf(node, way, typed);
    const written = JSON.stringify(body);
    if (key.current.body !== written) key.current = { body: written, id: idempotencyKey() };
    setBusy(true);
    try {
      const begun = await api.post(`search/${encodeURIComponent(search.id)}/branch`, body, { headers: { "Idempotency-Key": key.current.id } });
      onClose();
      navigate(`/search/${begun.id}/tree`);
    } catch (failure) {
      const found = complaintsBy(failure);
      setBusy(false);
      setComplaints(found ?? {});
      setError(found === null ? failure : null);
      // After it is drawn.
      if (found) setTimeout(() => /** @type {HTMLElement|null|undefined} */ (form.current?.querySelector("[aria-invalid=true]"))?.focus());
    }
  };
  const small = (/** @type {keyof Typed} */ name, /** @type {string} */ label, /** @type {string} */ hint) => html`<${Field} label=${label} hint=${hint} error=${complaints[name] ?? null}>${(/** @type {any} */ control) => html`<input ...${control} inputmode="numeric" autocomplete="off" value=${typed[name]} onInput=${(/** @type {any} */ event) => set(name)(event.currentTarget.value)} />`}<//>`;
  return html`<${Dialog} title=${node.id === ROOT ? "Branch from the problem" : "Branch from this step"} wide onClose=${onClose}>
    <form ref=${form} class="stack branch" onSubmit=${begin} noValidate>
      <fieldset class="stack tight">
        <legend class="visually-hidden">How the new search goes on</legend>
        ${ways.map((each) => html`<label key=${each.way} class=${`branch-way ${way === each.way ? "chosen" : ""}`}>
          <input type="radio" name="way" value=${each.way} checked=${way === each.way} onChange=${() => setWay(each.way)} />
          <span><strong>${each.label}</strong><span class="hint">${each.what}</span></span>
        </label>`)}
      </fieldset>
      ${way === "edit" ? html`<${Editor} value=${typed.text} error=${complaints.text ?? null} onInput=${set("text")} />` : node.id !== ROOT && html`<${Code} text=${node.text} label="the step" copy=${false} />`}
      <div class="branch-numbers">
        ${small("tokens", "Tokens", "Blank: as it was")}
        ${small("seconds", "Seconds", "Blank: as it was")}
        ${small("seed", "Seed", `It was ${number(search.seed)}`)}
      </div>
      ${error !== null && html`<${ErrorBox} error=${error} />`}
      <p class="muted branch-word">A new search begins, and this one stays as it is. What you give speaks for no answer: the new one is never verified by agreement, states no probability, and trains no model.</p>
      <div class="row branch-actions"><${Button} onClick=${onClose}>Cancel<//><${Button} kind="primary" type="submit" busy=${busy}>Begin the search<//></div>
    </form>
  <//>`;
}

/** Code to write in: Tab indents, and Escape leads on to the next control. @param {{value: string, error: string|null, onInput: (text: string) => void}} props */
function Editor({ value, error, onInput }) {
  const pressed = (/** @type {any} */ event) => {
    if (event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
    const area = /** @type {HTMLTextAreaElement} */ (event.currentTarget);
    if (event.key === "Tab" && !event.shiftKey) {
      event.preventDefault();
      // The one way that keeps what can be undone.
      if (!document.execCommand("insertText", false, INDENT)) area.setRangeText(INDENT, area.selectionStart, area.selectionEnd, "end");
      onInput(area.value);
    } else if (event.key === "Escape") {
      // It would close the dialog, and with it what was written.
      event.preventDefault();
      event.stopPropagation();
      /** @type {HTMLElement|null|undefined} */ (area.form?.querySelector(".branch-numbers input"))?.focus();
    }
  };
  return html`<${Field} label="The step" hint="Python; comment lines say why. Tab indents, Shift+Tab and Escape leave." error=${error}>${(/** @type {any} */ control) => html`<textarea ...${control} class="branch-editor" rows="10" spellcheck=${false} autocapitalize="off" autocomplete="off" wrap="off" value=${value} onKeyDown=${pressed} onInput=${(/** @type {any} */ event) => onInput(event.currentTarget.value)}></textarea>`}<//>`;
}

/** Not `crypto.randomUUID`, which plain HTTP to another machine has not. */
function idempotencyKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

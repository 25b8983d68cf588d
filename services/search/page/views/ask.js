// @ts-check
/** Begin a search: the problem, and how it is to be searched. */
import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { ApiError, api } from "../lib/api.js";
import { BLANK, DEFAULTS, byControl, complaintsOf, requestOf, typedOf } from "../lib/ask-form.js";
import { LEVELS, STRATEGIES, number } from "../lib/format.js";
import { navigate } from "../lib/router.js";
import { curlOf, pythonOf } from "../lib/snippets.js";
import { Button, Code, Details, ErrorBox, Field, useStyle, useTitle } from "../lib/ui.js";

/** @typedef {import("../lib/ask-form.js").Typed} Typed */
/** @typedef {{typed: Typed, complaints: Partial<Record<keyof Typed, string>>, set: (name: keyof Typed, value: string) => void}} Form */

const EXAMPLES = [
  { label: "Sheep", text: "A farmer has 17 sheep and buys 5 more each week for 4 weeks. How many sheep does he have?" },
  { label: "Train seats", text: "A train has 6 cars with 40 seats in each car. 175 seats are taken. How many seats are free?" },
  { label: "Discount", text: "A jacket costs $80. It is reduced by 15%, and at the till another $7 is taken off. What is the price?" },
  { label: "Digits", text: "How many positive integers below 1000 are divisible by 7 and have a digit sum of 10?" },
];
/** Controls behind "Advanced": it opens when one of them is complained about. @type {(keyof Typed)[]} */
const ADVANCED = ["tokens", "seconds", "nodes", "minConfidence", "reference", "policy", "prm", "rollouts", "temperature", "seed"];

/** What is being written, while this page lives: it outlasts a look elsewhere, and the question for a key. @type {Typed} */
let draft = BLANK;

/** @param {{query: URLSearchParams}} props `from`: a search whose request is shown, to be asked again. */
export function Ask({ query }) {
  useTitle("Ask");
  useStyle("ask");
  const [typed, setTyped] = useState(draft);
  const [complaints, setComplaints] = useState(/** @type {Partial<Record<keyof Typed, string>>} */ ({}));
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const [busy, setBusy] = useState(false);
  const [open, setOpen] = useState(false);
  useEffect(() => {
    draft = typed;
  }, [typed]);
  const form = useRef(/** @type {HTMLFormElement|null} */ (null));
  const complain = (/** @type {Partial<Record<keyof Typed, string>>} */ found) => {
    setComplaints(found);
    if (ADVANCED.some((name) => found[name])) setOpen(true);
    // After it is drawn: the first control that is wrong takes the focus.
    setTimeout(() => /** @type {HTMLElement|null|undefined} */ (form.current?.querySelector("[aria-invalid=true]"))?.focus());
  };
  const from = query.get("from");
  useEffect(() => {
    if (!from) return;
    const left = new AbortController();
    const show = async () => setTyped(typedOf(await api.get(`search/${encodeURIComponent(from)}`, { signal: left.signal })));
    show().catch((failure) => left.signal.aborted || setError(failure));
    return () => left.abort();
  }, [from]);
  const set = (/** @type {keyof Typed} */ name, /** @type {string} */ value) => {
    setTyped((before) => ({ ...before, [name]: value }));
    setComplaints((before) => ({ ...before, [name]: undefined }));
  };
  const begin = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setError(null);
    const found = complaintsOf(typed);
    if (Object.keys(found).length > 0) return complain(found);
    setBusy(true);
    try {
      const search = await api.post("search", requestOf(typed));
      draft = BLANK;
      navigate(`/search/${search.id}`);
    } catch (failure) {
      setBusy(false);
      if (!(failure instanceof ApiError) || failure.errors.length === 0) return setError(failure);
      const { beside, others } = byControl(failure.errors);
      complain(beside);
      if (others.length > 0) setError(new ApiError({ status: failure.status, title: failure.title, detail: null, errors: others }));
    }
  };
  const quick = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.current?.requestSubmit();
  };
  const state = { typed, complaints, set };
  return html`<div class="view ask">
    <div class="head"><h1>What is to be solved?</h1></div>
    <div class="ask-columns">
      <form class="panel stack" ref=${form} onSubmit=${begin} novalidate>
        <${Field} label="Problem" error=${complaints.problem} hint="In plain words. Ctrl+Enter begins.">
          ${(/** @type {any} */ control) => html`<textarea ...${control} rows="5" autofocus required value=${typed.problem} onInput=${(/** @type {any} */ e) => set("problem", e.target.value)} onKeyDown=${quick}></textarea>`}
        <//>
        <div class="row" role="group" aria-label="Examples">
          <span class="muted small">Try</span>
          ${EXAMPLES.map((each) => html`<${Button} key=${each.label} small title=${each.text} onClick=${() => set("problem", each.text)}>${each.label}<//>`)}
        </div>
        <div class="ask-pair">
          <${Choice} form=${state} name="strategy" label="Strategy" options=${Object.entries(STRATEGIES).map(([value, { label }]) => [value, label])} hint=${capital(STRATEGIES[typed.strategy]?.what ?? "")} />
          <${Choice} form=${state} name="require" label="Counts as solved" options=${levelOptions(typed)} hint=${levelHint(typed)} disabled=${typed.reference.trim() !== ""} />
        </div>
        <${Details} summary="Advanced: budget, confidence, reference answer, models" open=${open} onToggle=${setOpen}><${Advanced} form=${state} /><//>
        ${error && html`<${ErrorBox} error=${error} title=${from && !typed.problem ? "The search could not be loaded" : "The search could not be begun"} />`}
        <div class="row"><${Button} kind="primary" type="submit" busy=${busy}>${busy ? "Beginning" : "Begin the search"}<//></div>
      </form>
      <${Same} typed=${typed} />
    </div>
  </div>`;
}

/** @param {{form: Form}} props */
function Advanced({ form }) {
  const { budget, parameters, seed } = DEFAULTS;
  return html`<div class="stack">
    <fieldset class="stack tight">
      <legend>Budget</legend>
      <p class="muted small">The search ends with its best answer when any of these is used up.</p>
      <div class="ask-three">
        <${Input} form=${form} name="tokens" label="Tokens" usual=${number(budget.tokens)} numeric />
        <${Input} form=${form} name="seconds" label="Seconds" usual=${number(budget.seconds)} numeric />
        <${Input} form=${form} name="nodes" label="Nodes" usual=${number(budget.nodes)} numeric />
      </div>
    </fieldset>
    <div class="ask-pair">
      <${Input} form=${form} name="minConfidence" label="Least confidence, %" usual="as calibrated" hint="How probable the answer must be to count as solved." numeric />
      <${Input} form=${form} name="reference" label="Reference answer" usual="none" hint="Where it is known. Only the verifier sees it." />
    </div>
    <${Models} form=${form} />
    <div class="ask-three">
      <${Input} form=${form} name="rollouts" label="Rollouts" usual=${number(parameters.rollouts)} hint="Solutions to try." numeric />
      <${Input} form=${form} name="temperature" label="Temperature" usual=${String(parameters.temperature)} numeric />
      <${Input} form=${form} name="seed" label="Seed" usual=${String(seed)} hint="Same seed, same draws." numeric />
    </div>
  </div>`;
}

/** Versions to pin; those that are registered are offered to a key that may see them. @param {{form: Form}} props */
function Models({ form }) {
  const [known, setKnown] = useState(/** @type {{version: string, kind: string}[]} */ ([]));
  useEffect(() => {
    const left = new AbortController();
    // Only an operator's key may list them; a name can be typed all the same.
    const load = async () => ((await api.get("models", { signal: left.signal })).models ?? []);
    load().then(setKnown, () => {});
    return () => left.abort();
  }, []);
  const versions = (/** @type {string} */ kind) => known.filter((each) => each.kind === kind).map((each) => each.version);
  return html`<div class="ask-pair">
    <${Input} form=${form} name="policy" label="Policy version" usual="the one that serves" offered=${versions("policy")} />
    <${Input} form=${form} name="prm" label="PRM version" usual="the one that serves" offered=${versions("prm")} />
  </div>`;
}

/**
 * @param {{form: Form, name: keyof Typed, label: string, usual?: string, hint?: string, numeric?: boolean, offered?: string[]}} props
 * usual: what counts while it is empty.
 */
function Input({ form, name, label, usual, hint, numeric = false, offered = [] }) {
  const list = offered.length > 0 ? `offered-${name}` : undefined;
  return html`<${Field} label=${label} hint=${hint} error=${form.complaints[name]}>
    ${(/** @type {any} */ control) => html`<input ...${control} name=${name} type="text" inputmode=${numeric ? "decimal" : "text"} autocomplete="off" spellcheck=${false} placeholder=${usual} list=${list} value=${form.typed[name]} onInput=${(/** @type {any} */ e) => form.set(name, e.target.value)} />${list && html`<datalist id=${list}>${offered.map((each) => html`<option key=${each} value=${each}></option>`)}</datalist>`}`}
  <//>`;
}

/** @param {{form: Form, name: keyof Typed, label: string, options: [string, string][], hint?: string, disabled?: boolean}} props */
function Choice({ form, name, label, options, hint, disabled = false }) {
  return html`<${Field} label=${label} hint=${hint} error=${form.complaints[name]}>
    ${(/** @type {any} */ control) => html`<select ...${control} name=${name} disabled=${disabled} value=${form.typed[name]} onChange=${(/** @type {any} */ e) => form.set(name, e.target.value)}>${options.map(([value, text]) => html`<option key=${value} value=${value} selected=${form.typed[name] === value}>${text}</option>`)}</select>`}
  <//>`;
}

/** The same from elsewhere. @param {{typed: Typed}} props */
function Same({ typed }) {
  const [language, setLanguage] = useState("curl");
  const request = requestOf({ ...typed, problem: typed.problem.trim() ? typed.problem : (EXAMPLES[0]?.text ?? "") });
  const text = language === "curl" ? curlOf(request) : pythonOf(request);
  return html`<section class="panel stack tight ask-same" aria-label="The same from code">
    <div class="row between">
      <h2>The same from code</h2>
      <div class="row" role="group" aria-label="Language">
        ${["curl", "Python"].map((each) => html`<${Button} key=${each} small kind=${each === language ? "plain" : "quiet"} aria-pressed=${each === language ? "true" : "false"} onClick=${() => setLanguage(each)}>${each}<//>`)}
      </div>
    </div>
    <${Code} text=${text} label=${`the ${language}`} wrap />
  </section>`;
}

/** @param {Typed} typed @returns {[string, string][]} */
function levelOptions(typed) {
  const some = typed.reference.trim() ? ["reference"] : ["agreement", "execution", "reference"];
  return some.map((level) => [level, LEVELS[level] ?? level]);
}

/** @param {Typed} typed */
function levelHint({ require, reference }) {
  if (reference.trim()) return "A reference answer is given: the answer has to equal it";
  if (require === "agreement") return "Programs found independently give the same answer when run anew";
  if (require === "execution") return "A single program that gives the answer when run anew is enough";
  return "Give the reference answer under Advanced";
}

/** @param {string} text */
function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

// @ts-check
/** What a person typed into the form, as a body of `POST /search`; and where the API's complaints belong. Pure. */

/**
 * @typedef {object} Typed Every value as it stands in its control; "" leaves it to the service.
 * @property {string} problem
 * @property {string} strategy
 * @property {string} require
 * @property {string} tokens
 * @property {string} seconds
 * @property {string} nodes
 * @property {string} minConfidence Percent.
 * @property {string} reference
 * @property {string} policy
 * @property {string} prm
 * @property {string} rollouts
 * @property {string} temperature
 * @property {string} seed
 */

/** What the service takes where nothing is said; a test holds it to the API's contract. */
export const DEFAULTS = {
  "require": "agreement",
  "priority": "normal",
  "seed": 0,
  "budget": { "tokens": 4096, "seconds": 600, "nodes": 1024 },
  "parameters": {
    "rollouts": 16, "branching_factor": null, "widening": 0, "width": 8, "gate": null, "redraws": 2, "max_depth": 16,
    "exploration": 2, "temperature": 0.7, "top_p": 0.95, "max_tokens": 512, "in_flight": null, "batch_rollouts": false,
    "shared_draws": false, "min_agreement": 2, "prm": "value", "early_stop": true
  }
};

/** @type {Typed} */
export const BLANK = {
  problem: "", strategy: "auto", require: DEFAULTS.require, tokens: "", seconds: "", nodes: "", minConfidence: "",
  reference: "", policy: "", prm: "", rollouts: "", temperature: "", seed: "",
};

/** The control of each field of the API. @type {Record<string, keyof Typed>} */
const CONTROLS = {
  problem: "problem",
  strategy: "strategy",
  require: "require",
  reference_answer: "reference",
  min_confidence: "minConfidence",
  "budget.tokens": "tokens",
  "budget.seconds": "seconds",
  "budget.nodes": "nodes",
  "models.policy": "policy",
  "models.prm": "prm",
  "parameters.rollouts": "rollouts",
  "parameters.temperature": "temperature",
  seed: "seed",
};

/** The request, without what is left to the service. @param {Typed} typed @returns {Record<string, any>} */
export function requestOf(typed) {
  const reference = typed.reference.trim();
  const budget = given({ tokens: numeric(typed.tokens), seconds: numeric(typed.seconds), nodes: numeric(typed.nodes) });
  const models = given({ policy: typed.policy.trim() || null, prm: typed.prm.trim() || null });
  const parameters = given({ rollouts: numeric(typed.rollouts), temperature: numeric(typed.temperature) });
  const confidence = numeric(typed.minConfidence);
  return given({
    problem: typed.problem,
    reference_answer: reference || null,
    strategy: typed.strategy,
    parameters,
    budget,
    models,
    seed: numeric(typed.seed),
    // With a reference answer the level is always that.
    require: reference || typed.require === DEFAULTS.require ? null : typed.require,
    min_confidence: typeof confidence === "number" ? confidence / 100 : confidence,
  });
}

/** What can be told without asking the service. @param {Typed} typed @returns {Partial<Record<keyof Typed, string>>} */
export function complaintsOf(typed) {
  /** @type {Partial<Record<keyof Typed, string>>} */
  const complaints = {};
  if (!typed.problem.trim()) complaints.problem = "Write down a problem.";
  const confidence = numeric(typed.minConfidence);
  if (confidence !== null && !(typeof confidence === "number" && confidence >= 0 && confidence <= 100)) complaints.minConfidence = "A number from 0 to 100.";
  if (typed.require === "reference" && !typed.reference.trim()) complaints.reference = "This level needs the reference answer.";
  return complaints;
}

/**
 * Complaints of the API by control, and those that belong to none.
 * @param {{field: string, message: string}[]} errors
 */
export function byControl(errors) {
  /** @type {Partial<Record<keyof Typed, string>>} */
  const beside = {};
  /** @type {{field: string, message: string}[]} */
  const others = [];
  for (const each of errors) {
    const control = CONTROLS[each.field];
    if (control) beside[control] = sentence(each.message);
    else others.push(each);
  }
  return { beside, others };
}

/** A finished request as it would be typed again. @param {import("./search-model.js").SearchResult} result @returns {Record<string, any>} */
export function requestOfResult(result) {
  const { problem, strategy, seed, asked } = result;
  if (!asked) return { problem, strategy, seed };
  const parameters = beyond(asked.parameters, DEFAULTS.parameters);
  const budget = beyond(asked.budget, DEFAULTS.budget);
  // What the reference answer was is not told; without it the level that it brought cannot be asked for.
  const level = asked.require === "reference" ? null : unlessDefault(asked.require, DEFAULTS.require);
  return given({
    problem,
    strategy,
    parameters,
    budget,
    models: given(asked.models),
    seed: unlessDefault(seed, DEFAULTS.seed),
    priority: unlessDefault(asked.priority, DEFAULTS.priority),
    require: level,
    min_confidence: asked.min_confidence,
  });
}

/** A search's request in the form's controls. @param {import("./search-model.js").SearchResult} result @returns {Typed} */
export function typedOf(result) {
  const { budget = {}, models = {}, parameters = {}, ...request } = requestOfResult(result);
  const text = (/** @type {unknown} */ value) => (value == null ? "" : String(value));
  return {
    ...BLANK,
    problem: result.problem,
    strategy: result.strategy,
    require: text(request.require) || BLANK.require,
    tokens: text(budget.tokens),
    seconds: text(budget.seconds),
    nodes: text(budget.nodes),
    minConfidence: request.min_confidence == null ? "" : text(Math.round(request.min_confidence * 1e4) / 100),
    policy: text(models.policy),
    prm: text(models.prm),
    rollouts: text(parameters.rollouts),
    temperature: text(parameters.temperature),
    seed: text(request.seed),
  };
}

/** What is not as the service has it anyway. @param {Record<string, any>} fields @param {Record<string, any>} usual */
function beyond(fields, usual) {
  return given(Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, unlessDefault(value, usual[name])])));
}

/** @param {any} value @param {any} usual */
function unlessDefault(value, usual) {
  return value === usual ? null : value;
}

/** A number, the text itself where it is none (the API then says what is wrong with it), null for nothing. @param {string} text */
function numeric(text) {
  const trimmed = text.trim();
  if (trimmed === "") return null;
  const value = Number(trimmed);
  return Number.isFinite(value) ? value : trimmed;
}

/** Without nulls and empty objects. @param {Record<string, any>} fields @returns {Record<string, any>} */
function given(fields) {
  const kept = Object.entries(fields).filter(([, value]) => value != null && !(typeof value === "object" && Object.keys(value).length === 0));
  return Object.fromEntries(kept);
}

/** @param {string} text */
function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

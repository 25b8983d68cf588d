// @ts-check
/** What differs between two searches: numbers, settings, programs line by line. Pure. */
import { LEVELS, SEARCH_STATES, STRATEGIES, duration, number, percent } from "./format.js";

/** @typedef {import("./search-model.js").SearchResult} SearchResult */
/** @typedef {{label: string, a: string, b: string, differs: boolean, ahead: "a"|"b"|null, word: string}} Fact As text. `ahead`: the more probable, or the cheaper one; `word` says which. */
/** @typedef {{text: string, step: number|null}} Line step: the number of the step that begins here. */
/** @typedef {{kind: "same"|"changed"|"removed"|"added", a: Line|null, b: Line|null}} DiffRow */

/** Longer programs are compared line by line without looking for what was moved. */
const MOST_CELLS = 4_000_000;
const NONE = "–";

/** What came out, and what it cost. @param {SearchResult} a @param {SearchResult} b @returns {Fact[]} */
export function outcomeFacts(a, b) {
  const of = (/** @type {SearchResult} */ each) => each.verification;
  return [
    fact("State", a, b, (each) => SEARCH_STATES[each.state]?.label ?? each.state),
    fact("Answer", a, b, (each) => each.answer),
    fact("Behind it", a, b, (each) => LEVELS[of(each)?.level ?? ""] ?? null),
    ranked("Probability", a, b, (each) => of(each)?.confidence, (value) => percent(value), 1),
    fact("Votes", a, b, (each) => votesOf(each)),
    ranked("PRM share of the votes", a, b, (each) => of(each)?.prm_share, (value) => percent(value), 0),
    ranked("Independent programs", a, b, (each) => of(each)?.independent_programs, number, 1),
    ranked("Generated tokens", a, b, (each) => each.usage.policy.tokens, number, -1),
    ranked("Prompt tokens read", a, b, (each) => each.usage.policy.prompt_tokens, number, -1),
    ranked("Calls of the policy", a, b, (each) => each.usage.policy.calls, number, -1),
    ranked("Nodes", a, b, (each) => each.usage.nodes, number, 0),
    ranked("Rollouts", a, b, (each) => each.usage.rollouts, number, 0),
    ranked("Worked on", a, b, (each) => each.usage.wall_seconds, duration, -1),
  ];
}

/** What was asked for, and what answered. @param {SearchResult} a @param {SearchResult} b @returns {Fact[]} */
export function settingFacts(a, b) {
  const [flatA, flatB] = [settingsOf(a), settingsOf(b)];
  return [...new Set([...flatA.keys(), ...flatB.keys()])].map((label) => fact(label, flatA, flatB, (each) => each.get(label) ?? null));
}

/** Settings by their names, as text. @param {SearchResult} result @returns {Map<string, string>} */
function settingsOf({ strategy, seed, asked, models }) {
  const flat = new Map([["strategy", STRATEGIES[strategy]?.label ?? strategy], ["seed", String(seed)]]);
  const put = (/** @type {string} */ name, /** @type {unknown} */ value) => value != null && flat.set(name, String(value));
  for (const [part, version] of Object.entries(models)) put(`models.${part}`, version);
  if (asked) {
    put("require", asked.require);
    put("min_confidence", asked.min_confidence);
    put("priority", asked.priority);
    for (const [name, value] of Object.entries(asked.budget)) put(`budget.${name}`, value);
    for (const [name, value] of Object.entries(asked.parameters)) put(`parameters.${name}`, value);
  }
  return flat;
}

/** @template T @param {string} label @param {T} a @param {T} b @param {(of: T) => string|null|undefined} read @returns {Fact} */
function fact(label, a, b, read) {
  const [left, right] = [read(a) ?? NONE, read(b) ?? NONE];
  return { label, a: left, b: right, differs: left !== right, ahead: null, word: "" };
}

/**
 * A number. `sign`: 1 where who has more is pointed out, -1 where who has less is, 0: neither.
 * @param {string} label @param {SearchResult} a @param {SearchResult} b @param {(of: SearchResult) => number|null|undefined} read
 * @param {(value: number) => string} write @param {-1|0|1} sign @returns {Fact}
 */
function ranked(label, a, b, read, write, sign) {
  const [left, right] = [read(a) ?? null, read(b) ?? null];
  const told = (/** @type {number|null} */ value) => (value === null ? NONE : write(value));
  const plain = fact(label, left, right, told);
  if (!plain.differs || sign === 0 || left === null || right === null || left === right) return plain;
  return { ...plain, ahead: (left - right) * sign > 0 ? "a" : "b", word: sign > 0 ? "more" : "less" };
}

/** @param {SearchResult} result */
function votesOf({ verification: of }) {
  return of && of.total_votes > 0 ? `${number(of.votes)} of ${number(of.total_votes)}` : null;
}

/** The lines of a program, the first of each step marked. @param {{text: string}[]} steps @returns {Line[]} */
export function linesOf(steps) {
  return steps.flatMap((step, index) => step.text.split("\n").map((text, line) => ({ text, step: line === 0 ? index + 1 : null })));
}

/** Two programs side by side: lines that both have stand beside each other. @param {Line[]} a @param {Line[]} b @returns {DiffRow[]} */
export function diffLines(a, b) {
  /** @type {DiffRow[]} */
  const rows = [];
  let [i, j] = [0, 0];
  for (const [x, y] of [...common(a, b), [a.length, b.length]]) {
    const pairs = Math.min(x - i, y - j);
    for (let each = 0; each < pairs; each++) rows.push({ kind: "changed", a: at(a, i + each), b: at(b, j + each) });
    for (let each = i + pairs; each < x; each++) rows.push({ kind: "removed", a: at(a, each), b: null });
    for (let each = j + pairs; each < y; each++) rows.push({ kind: "added", a: null, b: at(b, each) });
    if (x < a.length) rows.push({ kind: "same", a: at(a, x), b: at(b, y) });
    [i, j] = [x + 1, y + 1];
  }
  return rows;
}

/** @param {Line[]} lines @param {number} index */
function at(lines, index) {
  return lines[index] ?? null;
}

/**
 * Places of a longest common subsequence (Wagner and Fischer's table).
 * @param {Line[]} a @param {Line[]} b @returns {[number, number][]}
 */
function common(a, b) {
  const wide = b.length + 1;
  if ((a.length + 1) * wide > MOST_CELLS) return a.flatMap((line, index) => (line.text === b[index]?.text ? [/** @type {[number, number]} */ ([index, index])] : []));
  const longest = new Uint32Array((a.length + 1) * wide);
  const length = (/** @type {number} */ x, /** @type {number} */ y) => longest[x * wide + y] ?? 0;
  for (let x = a.length - 1; x >= 0; x--) {
    for (let y = b.length - 1; y >= 0; y--) {
      longest[x * wide + y] = a[x]?.text === b[y]?.text ? length(x + 1, y + 1) + 1 : Math.max(length(x + 1, y), length(x, y + 1));
    }
  }
  /** @type {[number, number][]} */
  const places = [];
  for (let [x, y] = [0, 0]; x < a.length && y < b.length; ) {
    if (a[x]?.text === b[y]?.text) places.push([x++, y++]);
    else if (length(x + 1, y) >= length(x, y + 1)) x += 1;
    else y += 1;
  }
  return places;
}

/**
 * A changed line in three: what it begins with as the other does, what is its own, and how both end.
 * @param {string} own @param {string} other @returns {[string, string, string]}
 */
export function partsOf(own, other) {
  const [letters, others] = [[...own], [...other]];
  let start = 0;
  while (start < letters.length && letters[start] === others[start]) start += 1;
  let end = 0;
  while (end < Math.min(letters.length, others.length) - start && letters.at(-1 - end) === others.at(-1 - end)) end += 1;
  return [letters.slice(0, start).join(""), letters.slice(start, letters.length - end).join(""), letters.slice(letters.length - end).join("")];
}

/** Strategies that have not been tried with this search's problem and settings. @param {string} strategy */
export function otherStrategies(strategy) {
  return Object.keys(STRATEGIES).filter((each) => each !== strategy && each !== "auto");
}

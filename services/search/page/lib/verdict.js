// @ts-check
/** What stands behind an answer, in plain words. Pure. */
import { percent, plural } from "./format.js";

/** @typedef {import("./search-model.js").SearchResult} SearchResult */
/** @typedef {import("./search-model.js").Verification} Verification */
/** @typedef {{tone: "good"|"warn"|"bad"|"plain", text: string}} Finding */

/** @type {Record<string, number>} */
const STRENGTH = { none: 0, execution: 1, agreement: 2, reference: 3 };

/** Each thing that is known of the answer, the weightiest first. @param {Verification} of @returns {Finding[]} */
export function findingsOf(of) {
  return [level(of), confidence(of), votes(of), grounding(of)];
}

/** @param {Verification} of @returns {Finding} */
function level({ level, independent_programs: programs, forms }) {
  const found = `${plural(programs, "program")} that ${programs === 1 ? "was" : "were"} found independently, in ${plural(forms, "form")},`;
  if (level === "reference") return { tone: "good", text: "The answer equals the reference answer that came with the request." };
  if (level === "agreement") return { tone: "good", text: `${found} give this answer when run anew in a clean jail.` };
  if (level === "execution") {
    const alone = programs > 1 ? `It was found ${programs} times, in ${plural(forms, "form")}; that is too little for agreement.` : "No other program agrees.";
    return { tone: "warn", text: `A program gives this answer when run anew in a clean jail. ${alone}` };
  }
  return { tone: "bad", text: "No program that gives this answer could be run anew. Take it for a guess." };
}

/** @param {Verification} of @returns {Finding} */
function confidence({ confidence: has, min_confidence: least }) {
  if (has === null && least !== null) return { tone: "warn", text: `A probability of at least ${percent(least)} was asked for, and these models are not calibrated.` };
  if (has === null) return { tone: "plain", text: "There is no calibrated probability: the models are not calibrated, or nothing was sampled and scored." };
  const text = `The probability of being right, as calibrated, is ${percent(has)}.`;
  if (least === null) return { tone: "plain", text: `${text} None was asked for.` };
  const met = has >= least;
  return { tone: met ? "good" : "warn", text: `${text} At least ${percent(least, percent(least) === percent(has) ? 1 : 0)} counts as solved${met ? "." : ": it falls short."}` };
}

/** @param {Verification} of @returns {Finding} */
function votes({ votes: for_, total_votes: all, prm_share: share }) {
  const most = all > 0 && for_ * 2 > all;
  return { tone: most ? "good" : "plain", text: `${for_} of ${plural(all, "solution")} ended in it; weighed by the scores of their steps that is ${percent(share)}.` };
}

/** @param {Verification} of @returns {Finding} */
function grounding({ grounded }) {
  if (grounded === true) return { tone: "good", text: "When the quantities of the problem are changed, the program's answer changes with them." };
  if (grounded === false) return { tone: "bad", text: "The program answers the same whatever the problem states: nothing in it rests on the problem." };
  return { tone: "plain", text: "Whether the answer follows from the problem's quantities could not be tried: it states none that could be changed, or no program was run anew." };
}

/**
 * How the search came to its end and what can be done; null while it goes on, and where all is well.
 * @param {SearchResult} result @returns {{tone: "warn"|"bad"|"plain", title: string, text: string}|null}
 */
export function endingOf(result) {
  const why = result.reason ? `${result.reason.charAt(0).toUpperCase()}${result.reason.slice(1)}.` : "";
  switch (result.state) {
    case "failed":
      return { tone: "bad", title: "The search failed", text: `${why} Retry takes it up again with the tree that it has.`.trim() };
    case "cancelled":
      return { tone: "plain", title: "The search was cancelled", text: result.answer === null ? "There was no answer yet." : "The best answer so far is kept." };
    case "budget_exhausted":
      return { tone: "warn", title: "The search ended without an answer", text: `${why} Ask again with more tokens, or with another strategy.`.trim() };
    case "answered_unverified":
      return { tone: "warn", title: "Not verified", text: shortfall(result) };
    default:
      return null;
  }
}

/** Why an answer does not count as solved. @param {SearchResult} result */
function shortfall({ verification: of, asked }) {
  if (of === null) return "Nothing is known of what stands behind the answer.";
  const wanted = asked?.require ?? "agreement";
  if ((STRENGTH[of.level] ?? 0) < (STRENGTH[wanted] ?? 0)) {
    if (wanted === "reference") return "The answer does not equal the reference answer.";
    return `The level ${wanted} was asked for; the answer has ${of.level === "none" ? "none" : `only ${of.level}`}. More rollouts may find programs that agree.`;
  }
  if (of.min_confidence !== null && of.confidence === null) return "A probability was asked for, and these models are not calibrated.";
  if (of.min_confidence !== null && of.confidence !== null && of.confidence < of.min_confidence) {
    return `Its probability is ${percent(of.confidence)}; ${percent(of.min_confidence)} counts as solved.`;
  }
  // With a reference answer nothing else counts.
  return "The answer does not equal the reference answer.";
}

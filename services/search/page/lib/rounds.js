// @ts-check
/** Rounds, pairs and what they measured, in words. */
import { duration, number, percent } from "./format.js";

/** @typedef {import("./format.js").Tone} Tone */
/** @typedef {{n: number, right: number, samples: number, answered: number|null, accuracy: number, ci95: [number, number], tokens: number, outcomes: string}} Measured */
/** @typedef {{value: number|null, low: number|null, high: number|null, n: number}} Figure */
/** @typedef {{pair: string, measured: Record<string, Measured>}} MeasuredPair */
/** @typedef {{id: string, run: string, number: number, state: string, paused: boolean, cancel_requested: boolean, progress: {stage: string, done: number, total: number, note: string, seconds_left: number|null}, config: any, metrics: any, reason: string|null, failed_in: string|null, created_at: string, ended_at: string|null}} Round */

/** What a round goes through, in this order. */
export const STAGES = ["created", "searching", "selecting", "training_policy", "training_prm", "evaluating"];

/** What is known only as it goes: problems that stay unsolved are searched again, and the gate looks until it has decided. */
const IN_PARTS = ["searching", "evaluating"];

/** @type {Record<string, {label: string, tone: Tone, what: string}>} */
export const ROUND_STATES = {
  created: { label: "Loading problems", tone: "accent", what: "Problems are loaded, and refused where they cannot be verified." },
  searching: { label: "Searching", tone: "accent", what: "The models that serve search the training problems." },
  selecting: { label: "Selecting", tone: "accent", what: "Programs are run again, and the best become training data." },
  training_policy: { label: "Training the policy", tone: "accent", what: "The next policy learns from the programs." },
  training_prm: { label: "Training the PRM", tone: "accent", what: "The next PRM learns from the trees." },
  evaluating: { label: "Evaluating", tone: "accent", what: "The new pair is tested against the best so far." },
  promoted: { label: "Promoted", tone: "good", what: "The new pair serves." },
  rejected: { label: "Rejected", tone: "warn", what: "What served goes on serving." },
  failed: { label: "Failed", tone: "bad", what: "What it gathered is kept; a retry goes on where it failed." },
};

/** @param {Round} round */
export const isOver = (round) => ["promoted", "rejected", "failed"].includes(round.state);

/** @type {Record<string, string>} */
export const STRATEGY_NAMES = {
  greedy: "Policy, greedy",
  samples: "Policy, samples",
  mcts: "System (MCTS + PRM)",
  best_of_n: "Best of N",
  majority: "Majority",
};
/** @type {Record<string, string>} */
export const SPLIT_NAMES = { held_out: "held-out", development: "development", train: "training" };

/** "held_out.mcts" -> "System (MCTS + PRM), held-out". @param {string} name */
export function measureName(name) {
  const [split = "", strategy = ""] = name.split(".");
  return `${STRATEGY_NAMES[strategy] ?? strategy}, ${SPLIT_NAMES[split] ?? split} problems`;
}

/** @type {Record<string, string>} */
export const PAIR_NAMES = { incumbent: "What served before", candidate: "New pair", reference: "Best pair so far" };

/** "96.0% (90.2–98.4)". @param {number|null|undefined} value @param {number|null|undefined} low @param {number|null|undefined} high */
export function interval(value, low, high) {
  if (value == null) return "–";
  if (low == null || high == null) return percent(value, 1);
  return `${percent(value, 1)} (${edges(low, high)})`;
}

/** "90.2–98.4". @param {number} low @param {number} high */
export const edges = (low, high) => `${(low * 100).toFixed(1)}–${(high * 100).toFixed(1)}`;

/** @param {Measured|undefined} measured */
export const accuracyOf = (measured) => (measured ? interval(measured.accuracy, measured.ci95[0], measured.ci95[1]) : "–");

/** An AUC or an error with its interval. @param {Figure|null|undefined} figure */
export function figureText(figure) {
  if (!figure || figure.value == null) return "–";
  const between = figure.low != null && figure.high != null ? ` (${figure.low.toFixed(3)}–${figure.high.toFixed(3)})` : "";
  return `${figure.value.toFixed(3)}${between}`;
}

/** Points of accuracy with a sign: 0.017 -> "+1.7". @param {number} share */
export const points = (share) => `${share > 0 ? "+" : share < 0 ? "−" : "±"}${Math.abs(share * 100).toFixed(1)}`;

/** @param {[number, number]|null|undefined} between */
export const pointsInterval = (between) => (between ? `${points(between[0])} to ${points(between[1])}` : "–");

/** How long something takes, said as the estimate that it is. @param {number} seconds */
export function about(seconds) {
  if (seconds < 8) return "a few seconds";
  if (seconds < 50) return `about ${Math.round(seconds / 10) * 10} s`;
  if (seconds < 3600) return `about ${Math.max(1, Math.round(seconds / 60))} min`;
  return `about ${(seconds / 3600).toFixed(seconds < 36_000 ? 1 : 0)} h`;
}

/**
 * Where a round stands, in words, and about how long the rest of it takes.
 * @param {Round} round @param {Round|undefined} before The run's round before it, whose later stages say how long they take.
 */
export function standing(round, before) {
  const { done, total, note, seconds_left: left } = round.progress;
  const count = total > 0 ? `${number(done)} of ${number(total)}` : "";
  const later = before ? STAGES.slice(STAGES.indexOf(round.state) + 1).map((stage) => before.metrics.seconds[stage]).filter((seconds) => seconds != null) : [];
  const rest = later.reduce((sum, seconds) => sum + seconds, 0);
  return {
    count,
    note: note.replace(/\b(candidate|incumbent|reference)\.((?:development|held_out)\.\w+)/g, (_, who, measured) => `${(PAIR_NAMES[who] ?? who).toLowerCase()}, ${measureName(measured)}:`).replace(/^label /, "searches "),
    share: total > 0 ? done / total : null,
    left: left === null || round.paused ? null : `${about(left)} left ${IN_PARTS.includes(round.state) ? "in this part of the stage" : "in this stage"}`,
    rest: rest > 0 && before ? `the stages after it took ${duration(rest)} in round ${before.number}` : null,
  };
}

/** @type {Record<string, {label: string, tone: Tone}>} */
export const DECISIONS = {
  not_worse: { label: "Shown to be not worse", tone: "good" },
  worse: { label: "Worse", tone: "bad" },
  undecided: { label: "Not decided", tone: "warn" },
};

/** What the gate said, in one sentence. @param {Round} round */
export function verdictOf(round) {
  const gate = round.metrics.gate;
  if (round.state === "failed") return `Failed${round.failed_in ? ` while ${(ROUND_STATES[round.failed_in]?.label ?? round.failed_in).toLowerCase()}` : ""}: ${round.reason ?? "no reason was kept"}`;
  if (!gate) return isOver(round) ? round.reason ?? "No verdict was kept." : "The gate has not looked at it yet.";
  const parts = Object.entries(gate.comparisons).map(([name, each]) => `${name.endsWith(".mcts") ? "as a system" : "the policy alone"} ${points(each.difference)} points on ${number(each.n)} problems`);
  const how = parts.length > 0 ? `: ${parts.join(", ")}` : "";
  if (gate.promoted) return `Shown to be not worse than the best pair so far by ${number(round.config.gate.margin * 100, 1)} points or more${how}.`;
  return `Not promoted${how}. ${sentence(round.reason ?? gate.lost.map(measureName).join(", "))}`;
}

/** A reason as a sentence. @param {string} text */
const sentence = (text) => {
  const words = text.replace(/\b(?:development|held_out)\.\w+/g, measureName);
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;
};

/** Both versions of "policy prm". @param {string} pair */
export function versionsOf(pair) {
  const [policy = "", prm = ""] = pair.split(" ");
  return { policy, prm };
}

/** A link to a version. @param {string} version */
export const modelPath = (version) => `#/models?version=${encodeURIComponent(version)}`;

/** An address of the API with what people and models named in it. @param {string} version */
export const modelUrl = (version) => `/models/${version.split("/").map(encodeURIComponent).join("/")}`;

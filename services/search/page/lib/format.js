// @ts-check
/** Numbers, times and states as people read them. Every function takes null for "not known". */

const NOTHING = "–";

/** @param {number|null|undefined} value */
export function number(value, digits = 0) {
  if (value == null || !Number.isFinite(value)) return NOTHING;
  return value.toLocaleString("en-US", { maximumFractionDigits: digits, minimumFractionDigits: 0 });
}

/** 0.5 -> "50%". A share that is not quite all is never shown as 100%, nor a small one as 0%. @param {number|null|undefined} share */
export function percent(share, digits = 0) {
  if (share == null || !Number.isFinite(share)) return NOTHING;
  const text = (share * 100).toFixed(digits);
  const least = (10 ** -digits).toFixed(digits);
  if (share > 0 && Number(text) === 0) return `<${least}%`;
  if (share < 1 && Number(text) >= 100) return `>${(100 - 10 ** -digits).toFixed(digits)}%`;
  return `${text}%`;
}

/** A score from 0 to 1 with two places. @param {number|null|undefined} value */
export function score(value) {
  return value == null || !Number.isFinite(value) ? NOTHING : value.toFixed(2);
}

/** @param {number|null|undefined} seconds */
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return NOTHING;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  if (hours >= 48) return `${Math.round(hours / 24)} days`;
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

/** "3 steps", "1 step". @param {number} count @param {string} one @param {string} [many] */
export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/** The date and time in this browser's zone. @param {string|null|undefined} iso */
export function dateTime(iso) {
  const date = iso ? new Date(iso) : null;
  if (!date || Number.isNaN(date.getTime())) return NOTHING;
  return date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** "5 min ago". @param {string|null|undefined} iso @param {number} [now] ms */
export function ago(iso, now = Date.now()) {
  const date = iso ? new Date(iso).getTime() : NaN;
  if (Number.isNaN(date)) return NOTHING;
  const seconds = Math.max(0, (now - date) / 1000);
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86_400) return `${Math.round(seconds / 3600)} h ago`;
  return seconds < 30 * 86_400 ? plural(Math.round(seconds / 86_400), "day") + " ago" : dateTime(iso);
}

/** Seconds between two times; up to now where there is no second. @param {string|null} from @param {string|null} to */
export function secondsBetween(from, to, now = Date.now()) {
  return from === null ? null : Math.max(0, ((to === null ? now : new Date(to).getTime()) - new Date(from).getTime()) / 1000);
}

/** @typedef {"plain"|"accent"|"good"|"warn"|"bad"} Tone */

/** States of searches in words. @type {Record<string, {label: string, tone: Tone}>} */
export const SEARCH_STATES = {
  queued: { label: "Queued", tone: "plain" },
  running: { label: "Running", tone: "accent" },
  solved_verified: { label: "Solved, verified", tone: "good" },
  answered_unverified: { label: "Answered, unverified", tone: "warn" },
  budget_exhausted: { label: "No answer in budget", tone: "warn" },
  cancelled: { label: "Cancelled", tone: "plain" },
  failed: { label: "Failed", tone: "bad" },
};

/** Levels of verification in words. @type {Record<string, string>} */
export const LEVELS = {
  reference: "Equals the reference",
  agreement: "Independent programs agree",
  execution: "One program re-executed",
  none: "Nothing could be re-executed",
};

/** Strategies in words. @type {Record<string, {label: string, what: string}>} */
export const STRATEGIES = {
  auto: { label: "Automatic", what: "what measured best for the models that answer" },
  mcts: { label: "MCTS", what: "Monte-Carlo tree search over executed steps" },
  beam: { label: "Beam", what: "level by level, the best candidates are kept" },
  dvts: { label: "DVTS", what: "several beams that do not compete" },
  rebase: { label: "REBASE", what: "level by level, draws allotted by score" },
  best_of_n: { label: "Best of N", what: "independent solutions, the highest scored answer" },
  majority: { label: "Majority", what: "independent solutions, the most frequent answer" },
  greedy: { label: "Greedy", what: "one solution at temperature 0" },
};

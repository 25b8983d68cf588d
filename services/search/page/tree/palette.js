// @ts-check
/** The canvas's colours, taken from the style sheets: one place says what dark looks like. */

/** PRM scores are shown in so many colours, the lowest first. */
export const SCORE_COLOURS = 5;

/**
 * @typedef {object} Palette
 * @property {string} background
 * @property {string} edge
 * @property {string} text
 * @property {string} muted
 * @property {string} accent
 * @property {string} answer
 * @property {string} failed
 * @property {string} unscored
 * @property {string} told The task that a replay has reached.
 * @property {string[]} scores
 * @property {string} mono
 */

/** @param {Element} element @returns {Palette} */
export function readPalette(element) {
  const style = getComputedStyle(element);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  return {
    background: colour("--panel"),
    edge: colour("--tree-edge"),
    text: colour("--text"),
    muted: colour("--muted"),
    accent: colour("--accent"),
    answer: colour("--good"),
    failed: colour("--bad"),
    unscored: colour("--line-strong"),
    told: colour("--warn"),
    scores: Array.from({ length: SCORE_COLOURS }, (_, place) => colour(`--prm-${place}`)),
    mono: colour("--mono") || "monospace",
  };
}

/** Which of the colours a score has. @param {number} score 0..1 */
export function scoreColour(score) {
  return Math.max(0, Math.min(SCORE_COLOURS - 1, Math.floor(score * SCORE_COLOURS)));
}

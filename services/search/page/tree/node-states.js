// @ts-check
/** States of nodes in words. */

/** @type {Record<import("../lib/search-model.js").NodeState, {label: string, what: string, tone: import("../lib/format.js").Tone}>} */
export const NODE_STATES = {
  open: { label: "Open", what: "The step ran, and the search may go on from it.", tone: "accent" },
  terminal: { label: "Answer", what: "The step ran and ended the solution with an answer.", tone: "good" },
  exhausted: { label: "Exhausted", what: "Nothing more can come from here: no way on is left below it, or it is as deep as a solution may be.", tone: "plain" },
  abandoned: { label: "Left", what: "The step ran, but its PRM score fell too far below its parent's, so it was left.", tone: "warn" },
  failed: { label: "Failed", what: "The step did not run. It is kept for the record and never gone on from.", tone: "bad" },
};

// @ts-check
/** Which nodes a filter means. What it does not mean is dimmed and stays where it is. Pure. */

/** @typedef {import("./shown-tree.js").ShownTree} ShownTree */
/** @typedef {import("./shown-tree.js").NodeView} NodeView */

/**
 * @typedef {object} Filter All that is set has to hold; of `failed` and `answered` one is enough.
 * @property {boolean} failed Steps that did not run.
 * @property {boolean} answered Steps that gave an answer.
 * @property {number|null} below Steps whose PRM score is below this.
 * @property {string} text In code, output or answer, in any case.
 */

/** @type {Readonly<Filter>} */
export const NO_FILTER = Object.freeze({ failed: false, answered: false, below: null, text: "" });

/** @param {Filter} filter */
export function isActive(filter) {
  return filter.failed || filter.answered || filter.below !== null || filter.text.trim() !== "";
}

/** @type {WeakMap<NodeView, string>} */
const texts = new WeakMap();

/** @param {NodeView} node @param {Filter} filter */
export function matches(node, filter) {
  if ((filter.failed || filter.answered) && !isKind(node, filter)) return false;
  if (filter.below !== null && !(node.prm_score !== null && node.prm_score < filter.below)) return false;
  const text = filter.text.trim().toLowerCase();
  return text === "" || textOf(node).includes(text);
}

/**
 * The nodes that a filter means, in order; null: it is not active, and means all.
 * @param {ShownTree} tree
 * @param {Filter} filter
 * @returns {{numbers: number[], lit: Uint8Array}|null} lit: 1 for each of them, by number.
 */
export function findMatches(tree, filter) {
  if (!isActive(filter)) return null;
  const lit = new Uint8Array(tree.size);
  /** @type {number[]} */
  const numbers = [];
  for (let number = 1; number < tree.size; number++) {
    if (!matches(tree.nodes[number], filter)) continue;
    lit[number] = 1;
    numbers.push(number);
  }
  return { numbers, lit };
}

/** @param {NodeView} node @param {Filter} filter */
function isKind(node, filter) {
  return (filter.failed && node.state === "failed") || (filter.answered && node.answer !== null && node.state !== "failed");
}

/** @param {NodeView} node */
function textOf(node) {
  let text = texts.get(node);
  if (text === undefined) {
    text = [node.text, node.stdout, node.stderr, node.answer ?? "", node.id].join("\n").toLowerCase();
    texts.set(node, text);
  }
  return text;
}

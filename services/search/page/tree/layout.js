// @ts-check
/** A tidy layout of a tree: where each node stands, in rows. Depth is the other axis, and needs no layout. */

import { hierarchy, tree } from "../vendor/d3-hierarchy.js";

/** Nodes of different parents stand further apart, in rows. */
const COUSINS = 1.4;

/**
 * @typedef {object} Layout
 * @property {Float32Array} rows Row of each node, the topmost has 0.
 * @property {Int32Array} order The nodes in pre-order: within a depth they go from top to bottom.
 * @property {number} height Rows from the topmost to the lowest.
 */

/**
 * Buchheim, Jünger and Leipert, "Improving Walker's algorithm to run in linear time" (2002), as d3-hierarchy has it.
 * @param {ArrayLike<number>} parents The number of each node's parent, lower than its own; of the root, the first one, -1.
 * @returns {Layout}
 */
export function layOut(parents) {
  /** @typedef {{number: number, children: Item[]|null}} Item */
  /** @type {Item[]} */
  const items = [];
  for (let number = 0; number < parents.length; number++) {
    const item = { number, children: null };
    items.push(item);
    if (number > 0) (items[parents[number]].children ??= []).push(item);
  }
  const rows = new Float32Array(parents.length);
  const order = new Int32Array(parents.length);
  const separation = (/** @type {any} */ a, /** @type {any} */ b) => (a.parent === b.parent ? 1 : COUSINS);
  const root = tree().nodeSize([1, 1]).separation(separation)(hierarchy(items[0], (/** @type {Item} */ item) => item.children));
  let [place, top, bottom] = [0, Infinity, -Infinity];
  root.eachBefore((/** @type {{x: number, data: Item}} */ node) => {
    rows[node.data.number] = node.x;
    order[place++] = node.data.number;
    top = Math.min(top, node.x);
    bottom = Math.max(bottom, node.x);
  });
  for (let number = 0; number < rows.length; number++) rows[number] -= top;
  return { rows, order, height: bottom - top };
}

/** What a worker keeps between requests: the parents that it was told of. */
export class LayoutState {
  constructor() {
    /** @type {number[]} */
    this.parents = [];
  }

  /**
   * Lay out the tree that a request adds to.
   * @param {{from: number, parents: ArrayLike<number>}} request The parents of the nodes from number `from` on.
   * @returns {Layout & {ms: number}} ms: how long it took.
   */
  answer(request) {
    const began = performance.now();
    this.parents.length = request.from;
    for (let each = 0; each < request.parents.length; each++) this.parents.push(request.parents[each]);
    return { ...layOut(this.parents), ms: performance.now() - began };
  }
}

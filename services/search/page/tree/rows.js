// @ts-check
/** The outline's rows: which nodes it shows, which of them are on the screen, and where the keyboard goes. Pure. */

import { firstLine } from "./shown-tree.js";

/** @typedef {import("./shown-tree.js").ShownTree} ShownTree */

/** Rows above and below the screen that are drawn with it. */
const SPARE = 6;

/**
 * The numbers of the nodes that stand in the outline, from top to bottom.
 * @param {ShownTree} tree
 * @param {ReadonlySet<number>} closed Nodes whose children are not shown.
 * @param {(number: number) => boolean} isShown
 * @returns {number[]}
 */
export function visibleRows(tree, closed, isShown) {
  /** @type {number[]} */
  const rows = [];
  const stack = [0];
  for (let number = stack.pop(); number !== undefined; number = stack.pop()) {
    if (!isShown(number)) continue;
    rows.push(number);
    if (closed.has(number)) continue;
    const children = tree.children[number];
    for (let each = children.length - 1; each >= 0; each--) stack.push(children[each]);
  }
  return rows;
}

/**
 * Which rows to draw.
 * @param {{top: number, height: number, row: number, count: number}} screen Of the list, px; `row`: a row's height.
 * @returns {{from: number, to: number}} `to` is not among them.
 */
export function rowsOnScreen({ top, height, row, count }) {
  const from = Math.max(0, Math.floor(top / row) - SPARE);
  return { from, to: Math.min(count, Math.ceil((top + height) / row) + SPARE) };
}

/**
 * @typedef {object} Move What a key does.
 * @property {number} [select]
 * @property {number[]} [open]
 * @property {number[]} [close]
 */

/**
 * The move of a key, as the ARIA Authoring Practices have it for trees; null: the key means nothing here.
 * @param {string} key
 * @param {{tree: ShownTree, rows: readonly number[], closed: ReadonlySet<number>, at: number, page: number}} outline
 *   at: the number of the current node, page: rows on the screen.
 * @returns {Move|null}
 */
export function moveOf(key, { tree, rows, closed, at, page }) {
  const place = rows.indexOf(at);
  const to = (/** @type {number} */ row) => ({ select: rows[Math.max(0, Math.min(rows.length - 1, row))] });
  if (place < 0) return KEYS.has(key) && rows.length > 0 ? to(0) : null;
  const children = tree.children[at];
  switch (key) {
    case "ArrowDown":
      return to(place + 1);
    case "ArrowUp":
      return to(place - 1);
    case "PageDown":
      return to(place + page);
    case "PageUp":
      return to(place - page);
    case "Home":
      return to(0);
    case "End":
      return to(rows.length - 1);
    case "ArrowRight":
      if (children.length === 0) return {};
      return closed.has(at) ? { open: [at] } : to(place + 1);
    case "ArrowLeft":
      if (children.length > 0 && !closed.has(at)) return { close: [at] };
      return at === 0 ? {} : { select: tree.parents[at] };
    case "*":
      return { open: at === 0 ? [0] : tree.children[tree.parents[at]] };
    default:
      return null;
  }
}

const KEYS = new Set(["ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"]);

/**
 * The next row whose text begins with what was typed, from the current one on and round again; -1: none.
 * @param {{tree: ShownTree, rows: readonly number[], at: number, typed: string}} outline
 */
export function findTyped({ tree, rows, at, typed }) {
  const wanted = typed.toLowerCase();
  const place = Math.max(0, rows.indexOf(at));
  // A single letter goes on to the next; more letters may still mean the row where one is.
  const first = typed.length > 1 ? 0 : 1;
  for (let step = first; step <= rows.length; step++) {
    const number = rows[(place + step) % rows.length];
    if (firstLine(tree.nodes[number].text).toLowerCase().startsWith(wanted)) return number;
  }
  return -1;
}

/** Nodes above this one that are closed: what has to be opened to show it. @param {ShownTree} tree
 * @param {ReadonlySet<number>} closed @param {number} number */
export function closedAbove(tree, closed, number) {
  return tree.pathTo(number).slice(0, -1).filter((each) => closed.has(each));
}

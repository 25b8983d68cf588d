// @ts-check
/**
 * The tree as it is shown: nodes by a running number, so that layout and canvas work on arrays.
 *
 * Pure. Number 0 is the root, a parent's number is lower than its children's, and numbers never change. It holds what it was last
 * told, so whoever pauses simply tells it nothing.
 */

import { ROOT, SHOWN_CHARS } from "../lib/search-model.js";

/** @typedef {import("../lib/search-model.js").NodeView} NodeView */

/** @type {NodeView} */
const BARE_ROOT = {
  id: ROOT,
  parent: null,
  depth: 0,
  state: "open",
  text: "",
  status: null,
  stdout: "",
  stderr: "",
  prm_score: null,
  prior: 0,
  visits: 0,
  q: 0,
  tokens: 0,
  seconds: 0,
  answer: null,
  ended_by: null,
};

export class ShownTree {
  constructor() {
    /** @type {NodeView[]} */
    this.nodes = [BARE_ROOT];
    /** -1 for the root. @type {number[]} */
    this.parents = [-1];
    /** @type {number[]} */
    this.depths = [0];
    /** In the order in which they became known. @type {number[][]} */
    this.children = [[]];
    /** @type {Map<string, number>} */
    this.numbers = new Map([[ROOT, 0]]);
    /** Nodes whose parent is not known yet, by its id. @type {Map<string, NodeView[]>} */
    this._waiting = new Map();
  }

  get size() {
    return this.nodes.length;
  }

  /** The node's number; -1: not shown. @param {string|null|undefined} id */
  numberOf(id) {
    return id == null ? -1 : (this.numbers.get(id) ?? -1);
  }

  /** Take nodes, new or changed; how many became shown. @param {Iterable<NodeView>} nodes */
  take(nodes) {
    const before = this.size;
    for (const node of nodes) this._takeOne(node);
    return this.size - before;
  }

  /** Numbers from the root to the node. @param {number} number */
  pathTo(number) {
    /** @type {number[]} */
    const path = [];
    for (let at = number; at >= 0; at = this.parents[at]) path.push(at);
    return path.reverse();
  }

  /**
   * The node in which steps with these texts end, the first of them under the root; -1: there is none.
   * @param {readonly string[]} texts
   */
  find(texts) {
    let at = 0;
    for (const text of texts) {
      const next = this.children[at].find((child) => isSame(this.nodes[child].text, text));
      if (next === undefined) return -1;
      at = next;
    }
    return at;
  }

  /** @param {NodeView} node */
  _takeOne(node) {
    const number = this.numbers.get(node.id);
    if (number !== undefined) {
      this.nodes[number] = node;
      return;
    }
    const parent = this.numbers.get(node.parent ?? ROOT);
    if (parent === undefined) {
      const id = node.parent ?? ROOT;
      const others = (this._waiting.get(id) ?? []).filter((each) => each.id !== node.id);
      this._waiting.set(id, [...others, node]);
      return;
    }
    this._append(node, parent);
  }

  /** @param {NodeView} node @param {number} parent */
  _append(node, parent) {
    const number = this.size;
    this.nodes.push(node);
    this.parents.push(parent);
    this.depths.push(this.depths[parent] + 1);
    this.children.push([]);
    this.children[parent].push(number);
    this.numbers.set(node.id, number);
    const waiting = this._waiting.get(node.id);
    if (waiting) {
      this._waiting.delete(node.id);
      for (const each of waiting) this._takeOne(each);
    }
  }
}

/** Whether a node's text, which an event may have cut, is this one. @param {string} shown @param {string} whole */
function isSame(shown, whole) {
  return shown === whole || (shown.length >= SHOWN_CHARS && whole.startsWith(shown));
}

/** The first line of a step that says something: its code rather than a comment, where it has code. @param {string} text */
export function firstLine(text) {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  return (lines.find((line) => !line.trimStart().startsWith("#")) ?? lines[0] ?? "").trim();
}

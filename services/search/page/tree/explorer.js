// @ts-check
/**
 * What somebody looks at: the tree so far, what is selected, filtered, paused and replayed. Canvas, outline and panel share it.
 *
 * Pure: it draws nothing and asks nobody. What changed in the model is taken over by `flush`, so that a burst of events costs one
 * look at the tree.
 */

import { ROOT } from "../lib/search-model.js";
import { NO_FILTER, findMatches } from "./filters.js";
import { Journal } from "./journal.js";
import { Replay } from "./replay.js";
import { closedAbove } from "./rows.js";
import { ShownTree } from "./shown-tree.js";

/** @typedef {import("../lib/search-model.js").SearchModel} SearchModel */
/** @typedef {import("./filters.js").Filter} Filter */

export class Explorer {
  /** @param {SearchModel} model @param {Journal} [journal] */
  constructor(model, journal = new Journal()) {
    this.model = model;
    this.journal = journal;
    this.tree = new ShownTree();
    /** @type {Filter} */
    this.filter = NO_FILTER;
    /** @type {{numbers: number[], lit: Uint8Array}|null} */
    this.matches = null;
    /** Id of the node that is selected, whether it is there yet or not. */
    this.selectedId = ROOT;
    /** Nodes whose children the outline does not show. @type {Set<number>} */
    this.closed = new Set();
    this.paused = false;
    /** @type {Replay|null} */
    this.replay = null;
    /** The way to the answer. @type {Set<number>} */
    this.answerPath = new Set();
    /** @type {Set<number>} */
    this.selectedPath = new Set([0]);
    /** Grows with every change of what is shown. */
    this.version = 0;
    /** Ids that changed since the last flush. @type {Set<string>} */
    this._changed = new Set(model.nodes.keys());
    /** Of those, how many are not shown. */
    this._unseen = 0;
    /** @type {Set<() => void>} */
    this._listeners = new Set();
    /** Called when there is something to flush. @type {() => void} */
    this.onStale = () => {};
    this._end = model.subscribe((change) => this._note(change));
    this.flush();
  }

  /** The number of the selected node; -1: it is not there. */
  get selected() {
    return this.tree.numberOf(this.selectedId);
  }

  /** How many new nodes wait while it is paused. */
  get waiting() {
    return this._unseen;
  }

  get isHeld() {
    return this.paused || this.replay !== null;
  }

  /** Be told of changes; returns what ends it. @param {() => void} listener */
  subscribe(listener) {
    this._listeners.add(listener);
    return () => void this._listeners.delete(listener);
  }

  close() {
    this._end();
    this._listeners.clear();
  }

  /** Take over what changed in the model, unless it is paused. */
  flush() {
    if (this.isHeld) {
      // What waits is counted.
      this._tell();
      return;
    }
    const { nodes } = this.model;
    /** @type {import("./shown-tree.js").NodeView[]} */
    const changed = [];
    for (const id of this._changed) {
      const node = nodes.get(id);
      if (node) changed.push(node);
    }
    this._changed.clear();
    this._unseen = 0;
    this.tree.take(changed);
    this._refresh();
  }

  /** @param {boolean} paused */
  pause(paused) {
    this.paused = paused;
    this.flush();
  }

  /** @param {Partial<Filter>} change */
  setFilter(change) {
    this.filter = { ...this.filter, ...change };
    this._refresh();
  }

  /** @param {string} id */
  select(id) {
    if (id === this.selectedId) return;
    this.selectedId = id;
    const number = this.selected;
    for (const each of number < 0 ? [] : closedAbove(this.tree, this.closed, number)) this.closed.delete(each);
    this._mark();
    this._tell();
  }

  /** Select the next node that the filter means, or the one before. @param {1|-1} step */
  selectMatch(step) {
    const numbers = (this.matches?.numbers ?? []).filter((number) => this.isShown(number));
    if (numbers.length === 0) return;
    const at = numbers.indexOf(this.selected);
    const from = at >= 0 ? at : step > 0 ? -1 : 0;
    this.select(this.tree.nodes[numbers[(from + step + numbers.length) % numbers.length]].id);
  }

  /** @param {{open?: readonly number[], close?: readonly number[]}} change */
  fold({ open = [], close = [] }) {
    for (const number of open) this.closed.delete(number);
    for (const number of close) this.closed.add(number);
    this._tell();
  }

  /** Show the search as it ran, from the journal so far, or as it is now again. @param {boolean} on */
  setReplay(on) {
    if (on) {
      this.flush();
      this.replay = new Replay(this.tree, this.journal.tasks, this.model.over);
      this.replay.seek(this.replay.length);
    } else {
      this.replay = null;
      this.flush();
    }
    this._mark();
    this._tell();
  }

  /** @param {number} step */
  seek(step) {
    this.replay?.seek(step);
    this._tell();
  }

  /** @param {number} number */
  isShown(number) {
    return this.replay === null || this.replay.has(number);
  }

  /** Visits and Q, as they are or as they were. @param {number} number */
  countsOf(number) {
    if (this.replay) return { visits: this.replay.visits[number] ?? 0, q: this.replay.q(number) };
    const { visits, q } = this.tree.nodes[number];
    return { visits, q };
  }

  /** Journal entries have come. */
  journalRead() {
    this._tell();
  }

  /** @param {import("../lib/search-model.js").Change} change */
  _note(change) {
    if (change.kind === "node" && change.id !== undefined) this._noteNode(change.id);
    else if (change.kind === "tree") for (const id of this.model.nodes.keys()) this._noteNode(id);
    this.onStale();
  }

  /** @param {string} id */
  _noteNode(id) {
    if (this._changed.has(id)) return;
    this._changed.add(id);
    if (!this.tree.numbers.has(id)) this._unseen += 1;
  }

  _refresh() {
    this.matches = findMatches(this.tree, this.filter);
    this._mark();
    this._tell();
  }

  _mark() {
    this.selectedPath = new Set(this.selected < 0 ? [] : this.tree.pathTo(this.selected));
    const end = this._answerEnd();
    this.answerPath = new Set(end > 0 ? this.tree.pathTo(end) : []);
  }

  /** Where the program of the answer ends: the result's, and before there is one the leading answer's. */
  _answerEnd() {
    const { result, answers } = this.model;
    if (result && result.steps.length > 0) {
      const end = this.tree.find(result.steps.map((step) => step.text));
      if (end > 0) return end;
    }
    const ends = (answers[0]?.nodes ?? []).map((id) => this.tree.numberOf(id)).filter((number) => number > 0);
    return ends.reduce((best, each) => (best < 0 || this._weight(each) > this._weight(best) ? each : best), -1);
  }

  /** @param {number} number */
  _weight(number) {
    const { visits, prm_score } = this.tree.nodes[number];
    return visits + (prm_score ?? 0);
  }

  _tell() {
    this.version += 1;
    for (const listener of this._listeners) listener();
  }
}

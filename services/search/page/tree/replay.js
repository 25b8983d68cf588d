// @ts-check
/**
 * A search as it ran, told again from its journal: which nodes there were after each task, and their visits and Q then. Pure.
 *
 * Limits: a node's state is that of the end; whether it was already exhausted at the time the journal does not say.
 */

/** @typedef {import("./journal.js").Task} Task */
/** @typedef {import("./shown-tree.js").ShownTree} ShownTree */

/** What a trajectory without an answer counts as. */
const DEAD_END = -1;

export class Replay {
  /**
   * @param {ShownTree} tree The tree as it is now.
   * @param {readonly Task[]} tasks In the order in which they were told.
   * @param {boolean} over Whether the journal has all that made the tree.
   */
  constructor(tree, tasks, over) {
    this.tasks = tasks;
    /** Tasks that have been told. */
    this.step = 0;
    /** @type {number[][]} */
    this._made = tasks.map((task) => task.made.map((id) => tree.numberOf(id)).filter((number) => number >= 0));
    /** From the root to where each task ended. @type {number[][]} */
    this._paths = tasks.map((task) => (task.end === null ? [] : tree.pathTo(tree.numberOf(task.end))));
    this._starts = tasks.map((task) => tree.numberOf(task.node));
    this._atStart = shownAtStart(tree, this._made, over);
    /** 1 for each node that there is. */
    this.shown = this._atStart.slice();
    this.visits = new Int32Array(tree.size);
    this._sums = new Float64Array(tree.size);
  }

  get length() {
    return this.tasks.length;
  }

  /** The task that was told last; null: none yet. */
  get task() {
    return this.step > 0 ? this.tasks[this.step - 1] : null;
  }

  /** Numbers from the root to where the last task ended, or began where it ended nowhere. */
  get path() {
    if (this.step === 0) return [];
    const path = this._paths[this.step - 1];
    return path.length > 0 ? path : [this._starts[this.step - 1]].filter((number) => number >= 0);
  }

  /** Numbers of the nodes that the last task made. */
  get made() {
    return this.step > 0 ? this._made[this.step - 1] : [];
  }

  /** Mean backed-up value at this time, in [-1, 1]; 0 before the first visit. @param {number} number */
  q(number) {
    return this.visits[number] > 0 ? this._sums[number] / this.visits[number] : 0;
  }

  /** @param {number} number */
  has(number) {
    return this.shown[number] === 1;
  }

  /** Go to the moment after so many tasks. @param {number} step */
  seek(step) {
    const to = Math.max(0, Math.min(this.length, Math.round(step)));
    if (to < this.step) {
      this.shown.set(this._atStart);
      this.visits.fill(0);
      this._sums.fill(0);
      this.step = 0;
    }
    while (this.step < to) this._tell(this.step++);
  }

  /** @param {number} place */
  _tell(place) {
    for (const number of this._made[place]) this.shown[number] = 1;
    const value = this.tasks[place].value ?? DEAD_END;
    for (const number of this._paths[place]) {
      this.visits[number] += 1;
      this._sums[number] += value;
    }
  }
}

/**
 * Nodes that no task made: a branch's first steps, and all of a search that kept no journal. While a search runs, a node that
 * came after the journal was read is none of them.
 * @param {ShownTree} tree
 * @param {readonly number[][]} made
 * @param {boolean} over
 */
function shownAtStart(tree, made, over) {
  const isMade = new Uint8Array(tree.size);
  for (const numbers of made) for (const number of numbers) isMade[number] = 1;
  const leadsOn = isMade.slice();
  for (let number = tree.size - 1; number > 0; number--) if (leadsOn[number]) leadsOn[tree.parents[number]] = 1;
  const shown = new Uint8Array(tree.size);
  for (let number = 0; number < tree.size; number++) {
    shown[number] = number === 0 || (!isMade[number] && (over || leadsOn[number])) ? 1 : 0;
  }
  return shown;
}

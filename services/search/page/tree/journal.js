// @ts-check
/** The journal of a search as far as it was read: its tasks in the order in which the strategy was told of them. Pure. */

/**
 * @typedef {object} Choice One choice on the way down to the node at which a task begins.
 * @property {string} node
 * @property {number} estimate
 * @property {number|null} explore
 * @property {number|null} score
 * @property {number} [rank]
 * @property {number} [of]
 * @property {{node: string, score: number|null}|null} runner_up
 */
/** @typedef {{rule: string, steps: Choice[], words: string}} Why */
/**
 * @typedef {object} Task
 * @property {number} number
 * @property {string} node Where it began.
 * @property {string} draw
 * @property {number} order
 * @property {string[]} made
 * @property {string|null} end
 * @property {number|null} value
 * @property {Why|null} why
 */
/** @typedef {{tasks: Task[], next: number|null}} Page */
/** @typedef {{choice: Choice, task: Task}} Chosen */

export class Journal {
  constructor() {
    /** @type {Task[]} */
    this.tasks = [];
    /** @type {Map<string, Task>} */
    this._makers = new Map();
    /** @type {Map<string, Chosen[]>} */
    this._choices = new Map();
  }

  /** `after` of the page that comes next; null: the first one. */
  get after() {
    return this.tasks.length > 0 ? this.tasks[this.tasks.length - 1].order : null;
  }

  /** @param {readonly Task[]} tasks Those that are known are left out. */
  add(tasks) {
    for (const task of tasks) {
      if (this.after !== null && task.order <= this.after) continue;
      this.tasks.push(task);
      for (const id of task.made) if (!this._makers.has(id)) this._makers.set(id, task);
      for (const choice of task.why?.steps ?? []) this._addChoice(choice, task);
    }
  }

  /** The task that made the node; null: none that is known. @param {string} id */
  makerOf(id) {
    return this._makers.get(id) ?? null;
  }

  /** Each time that the node was taken on the way to where a task began. @param {string} id @returns {readonly Chosen[]} */
  choicesOf(id) {
    return this._choices.get(id) ?? [];
  }

  /**
   * Read all that is new.
   * @param {(after: number|null) => Promise<Page>} readPage
   */
  async read(readPage) {
    for (let more = true; more; ) {
      const page = await readPage(this.after);
      this.add(page.tasks);
      more = page.next !== null && page.tasks.length > 0;
    }
  }

  /** @param {Choice} choice @param {Task} task */
  _addChoice(choice, task) {
    const known = this._choices.get(choice.node);
    if (known) known.push({ choice, task });
    else this._choices.set(choice.node, [{ choice, task }]);
  }
}

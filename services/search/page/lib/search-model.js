// @ts-check
/**
 * One search as a page sees it: its result, its tree and its answers so far, brought up to date event by event.
 *
 * Pure: no network, no clock, no DOM. Events may come twice or out of order; the same events give the same model.
 * Answers are told apart by their text. The service also knows which texts are one number, so its votes can be fewer
 * groups than these; once there is a result, its numbers count.
 */

/** @typedef {"queued"|"running"|"solved_verified"|"answered_unverified"|"budget_exhausted"|"cancelled"|"failed"} SearchState */
/** @typedef {"open"|"terminal"|"exhausted"|"abandoned"|"failed"} NodeState */
/** @typedef {"idle"|"connected"|"reconnecting"|"ended"} Connection */

/**
 * @typedef {object} NodeView One executed step; the API's NodeView.
 * @property {string} id
 * @property {string|null} parent null: it is the root.
 * @property {number} depth The root has 0, the first steps 1.
 * @property {NodeState} state
 * @property {string} text
 * @property {string|null} status How the sandbox ran it.
 * @property {string} stdout
 * @property {string} stderr
 * @property {number|null} prm_score 0..1
 * @property {number} prior Mean log-probability, nats.
 * @property {number} visits
 * @property {number} q
 * @property {number} tokens
 * @property {number} seconds
 * @property {string|null} answer
 * @property {string|null} [answer_group] Equal for answers that the vote counts as one.
 * @property {string|null} ended_by
 */

/**
 * @typedef {object} Verification
 * @property {"reference"|"agreement"|"execution"|"none"} level
 * @property {number} votes
 * @property {number} total_votes
 * @property {number} independent_programs
 * @property {number} forms
 * @property {boolean|null} grounded
 * @property {number} prm_share
 * @property {number|null} confidence
 * @property {number|null} min_confidence
 */

/** @typedef {{calls: number, tokens: number, prompt_tokens: number, seconds: number}} UsagePart */
/** @typedef {{policy: UsagePart, prm: UsagePart, sandbox: UsagePart, wall_seconds: number, nodes: number, rollouts: number}} Usage */
/** @typedef {{text: string, stdout: string, prm_score: number|null}} StepView */

/**
 * @typedef {object} Asked
 * @property {Record<string, any>} parameters
 * @property {{tokens: number, seconds: number, nodes: number}} budget
 * @property {{policy: string|null, prm: string|null}} models
 * @property {string} priority
 * @property {string} require
 * @property {number|null} min_confidence
 */

/**
 * @typedef {object} SearchResult The API's SearchResult.
 * @property {string} id
 * @property {SearchState} state
 * @property {string} problem
 * @property {string} strategy
 * @property {number} seed
 * @property {string|null} answer
 * @property {string|null} program
 * @property {StepView[]} steps
 * @property {Verification|null} verification
 * @property {Usage} usage
 * @property {Record<string, string>} models
 * @property {string|null} reason
 * @property {{search: string, node: string}|null} [parent] Where it was branched from.
 * @property {Asked|null} [asked] What the request asked for.
 * @property {string} created_at
 * @property {string|null} started_at
 * @property {string|null} ended_at
 */

/** @typedef {{id?: string|null, kind: string, data: any}} SearchEvent */
/**
 * Ends that give one answer, as the first of them writes it.
 * @typedef {{answer: string, spellings: Set<string>, votes: number, share: number, prm: number|null, nodes: string[]}} Answer
 */
/**
 * @typedef {object} Change What a listener is told.
 * @property {"node"|"tree"|"result"|"answers"|"connection"} kind tree: many nodes at once.
 * @property {string} [id] The node.
 * @property {boolean} [added] Whether it is a new one.
 */

/** Id of the node that holds the problem; it has no step. */
export const ROOT = "root";
/** Events cut longer texts of a node to so many characters; the tree has them whole. */
export const SHOWN_CHARS = 1000;

/** @type {ReadonlySet<string>} */
const ENDS = new Set(["solved_verified", "answered_unverified", "budget_exhausted", "cancelled", "failed"]);

/** @param {string|null|undefined} state */
export function isOver(state) {
  return state != null && ENDS.has(state);
}

export class SearchModel {
  constructor() {
    /** @type {SearchResult|null} */
    this.result = null;
    /** Every node, in the order in which it became known. @type {Map<string, NodeView>} */
    this.nodes = new Map();
    /** Ids of children by their parent's. @type {Map<string, string[]>} */
    this.children = new Map();
    /** The leading one first. @type {Answer[]} */
    this.answers = [];
    /** @type {Connection} */
    this.connection = "idle";
    /** Events were missed: the tree has to be loaded. */
    this.gap = false;
    /** Grows with every change. */
    this.version = 0;
    /** The newest state and reason. @type {SearchState|null} */
    this.state = null;
    /** @type {string|null} */
    this.reason = null;
    /** @type {Map<string, {answer: string, group: string, votes: number, prm: number|null}>} */
    this._ends = new Map();
    /** @type {Set<(change: Change) => void>} */
    this._listeners = new Set();
  }

  get over() {
    return isOver(this.state);
  }

  /**
   * Be told of every change; returns what ends it. Many come at once: draw at most once a frame.
   * @param {(change: Change) => void} listener
   */
  subscribe(listener) {
    this._listeners.add(listener);
    return () => void this._listeners.delete(listener);
  }

  /** Take in one event of the stream. @param {SearchEvent} event */
  apply(event) {
    const data = event.data;
    if (event.kind === "node") {
      const added = this._put(data, true);
      this._tell({ kind: "node", id: data.id, added });
    } else if (event.kind === "answer") {
      this._ends.set(data.node, { answer: data.answer, group: data.answer_group ?? data.answer, votes: data.votes, prm: data.prm_score });
      this._count();
      this._tell({ kind: "answers" });
    } else if (event.kind === "state") {
      this._setState(data.state, data.reason ?? null);
      this._tell({ kind: "result" });
    } else if (event.kind === "gap") {
      this.gap = true;
      this._tell({ kind: "tree" });
    } else if (event.kind === "end") {
      this.setResult(data);
    }
  }

  /** Take what the API says of the search. @param {SearchResult} result */
  setResult(result) {
    this.result = result;
    this.state = result.state;
    this.reason = result.reason;
    this._tell({ kind: "result" });
  }

  /** @param {Connection} connection */
  setConnection(connection) {
    if (connection === this.connection) return;
    this.connection = connection;
    this._tell({ kind: "connection" });
  }

  /**
   * Take pages of `GET /search/{id}/tree`, whose texts are whole.
   * @param {{nodes: NodeView[]}[]} pages
   */
  loadTree(pages) {
    for (const page of pages) for (const node of page.nodes) this._put(node, false);
    this.gap = false;
    this._count();
    this._tell({ kind: "tree" });
  }

  /** The node's children in order. @param {string} id @returns {readonly NodeView[]} */
  childrenOf(id) {
    const ids = this.children.get(id) ?? [];
    return ids.flatMap((each) => this.nodes.get(each) ?? []);
  }

  /** From the first step to the node, without the root. @param {string} id @returns {NodeView[]} */
  pathTo(id) {
    /** @type {NodeView[]} */
    const path = [];
    for (let node = this.nodes.get(id); node?.parent != null; node = this.nodes.get(node.parent)) path.unshift(node);
    return path;
  }

  /**
   * @param {NodeView} node
   * @param {boolean} cut Its texts may be cut.
   */
  _put(node, cut) {
    const known = this.nodes.get(node.id);
    const kept = known && cut ? { ...node, ...longerTexts(known, node) } : node;
    this.nodes.set(node.id, kept);
    if (!known && node.parent != null) {
      const siblings = this.children.get(node.parent);
      if (siblings) siblings.push(node.id);
      else this.children.set(node.parent, [node.id]);
    }
    if (kept.answer != null && kept.state !== "failed") {
      this._ends.set(kept.id, { answer: kept.answer, group: kept.answer_group ?? kept.answer, votes: kept.visits, prm: kept.prm_score });
      if (cut) this._count();
    }
    return !known;
  }

  _count() {
    /** @type {Map<string, Answer>} */
    const groups = new Map();
    let total = 0;
    for (const [node, end] of this._ends) {
      const group = groups.get(end.group) ?? { answer: end.answer, spellings: new Set(), votes: 0, share: 0, prm: null, nodes: [] };
      group.spellings.add(end.answer);
      group.votes += end.votes;
      group.nodes.push(node);
      if (end.prm != null) group.prm = Math.max(group.prm ?? 0, end.prm);
      groups.set(end.group, group);
      total += end.votes;
    }
    this.answers = [...groups.values()].sort((a, b) => b.votes - a.votes || (b.prm ?? 0) - (a.prm ?? 0));
    for (const each of this.answers) each.share = total > 0 ? each.votes / total : 0;
  }

  /**
   * @param {SearchState} state
   * @param {string|null} reason
   */
  _setState(state, reason) {
    this.state = state;
    this.reason = reason;
    if (this.result) this.result = { ...this.result, state, reason };
  }

  /** @param {Change} change */
  _tell(change) {
    this.version += 1;
    for (const listener of this._listeners) listener(change);
  }
}

/** An empty model. */
export function createSearchModel() {
  return new SearchModel();
}

/**
 * The texts of a node that are already known whole, where an event has them cut.
 * @param {NodeView} known
 * @param {NodeView} told
 */
function longerTexts(known, told) {
  /** @type {Partial<NodeView>} */
  const longer = {};
  for (const name of /** @type {const} */ (["text", "stdout", "stderr", "answer"])) {
    const [old, now] = [known[name], told[name]];
    if (old != null && now != null && now.length >= SHOWN_CHARS && old.startsWith(now)) longer[name] = old;
  }
  return longer;
}

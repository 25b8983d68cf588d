// @ts-check
/**
 * Where every node stands now, and where it is going to. Pure: time comes as a part of the way.
 *
 * Within a depth the nodes go from top to bottom, so what is on the screen, or under the pointer, is found by halving.
 */

/** @typedef {import("./shown-tree.js").ShownTree} ShownTree */
/** @typedef {import("./layout.js").Layout} Layout */

/** Nearer than this to its place, in rows and columns, a node has arrived. */
const ARRIVED = 0.004;

export class Scene {
  /** @param {ShownTree} tree */
  constructor(tree) {
    this.tree = tree;
    /** Nodes that have a place. */
    this.count = 0;
    /** Rows now. */
    this.rows = new Float32Array(0);
    /** Columns now. */
    this.columns = new Float32Array(0);
    /** Rows to come. */
    this.targets = new Float32Array(0);
    /** Nodes by depth, from top to bottom. @type {Int32Array[]} */
    this.byDepth = [];
    /** @type {import("./viewport.js").Extent} */
    this.extent = { rows: 0, depth: 0 };
    /** The longest way that a node still has, in rows. */
    this.shift = 0;
    this.isMoving = false;
  }

  /**
   * Take a layout.
   * @param {Layout} layout
   * @param {boolean} still Everything is there at once.
   */
  take(layout, still) {
    const { rows: targets, order, height } = layout;
    const count = targets.length;
    const [rows, columns] = [new Float32Array(count), new Float32Array(count)];
    const known = Math.min(this.count, count);
    rows.set(this.rows.subarray(0, known));
    columns.set(this.columns.subarray(0, known));
    let deepest = 0;
    for (let number = 0; number < count; number++) {
      const parent = this.tree.parents[number];
      deepest = Math.max(deepest, this.tree.depths[number]);
      if (number < known) continue;
      // A new node comes out of its parent.
      rows[number] = parent >= 0 && !still ? rows[parent] : targets[number];
      columns[number] = parent >= 0 && !still ? columns[parent] : this.tree.depths[number];
    }
    Object.assign(this, { count, rows, columns, targets, byDepth: this._byDepth(order, deepest) });
    this.extent = { rows: height, depth: deepest };
    this.advance(still ? 1 : 0);
  }

  /** Go on by a part of the way that is left; whether anything still moves. @param {number} part */
  advance(part) {
    const { rows, columns, targets, count } = this;
    const { depths } = this.tree;
    let [shift, slip] = [0, 0];
    for (let number = 0; number < count; number++) {
      const down = targets[number] - rows[number];
      const across = depths[number] - columns[number];
      rows[number] += down * part;
      columns[number] += across * part;
      shift = Math.max(shift, Math.abs(down) * (1 - part));
      slip = Math.max(slip, across * (1 - part));
    }
    this.isMoving = shift > ARRIVED || slip > ARRIVED;
    if (!this.isMoving && (shift > 0 || slip > 0)) {
      rows.set(targets);
      for (let number = 0; number < count; number++) columns[number] = depths[number];
    }
    this.shift = this.isMoving ? shift : 0;
    return this.isMoving;
  }

  /**
   * The nodes of a depth between two rows, as places in `byDepth[depth]`.
   * @param {number} depth @param {number} top @param {number} bottom
   */
  between(depth, top, bottom) {
    const nodes = this.byDepth[depth];
    return { from: this._first(nodes, top - this.shift), to: this._first(nodes, bottom + this.shift) };
  }

  /** The node of a depth that is nearest to a row; -1: there is none. @param {number} depth @param {number} row */
  nearest(depth, row) {
    const nodes = this.byDepth[depth];
    if (!nodes || nodes.length === 0) return -1;
    const at = this._first(nodes, row);
    const near = [nodes[at - 1], nodes[at]].filter((each) => each !== undefined);
    return near.reduce((best, each) => (Math.abs(this.targets[each] - row) < Math.abs(this.targets[best] - row) ? each : best));
  }

  /** The first place whose node stands at this row or below. @param {Int32Array} nodes @param {number} row */
  _first(nodes, row) {
    let [low, high] = [0, nodes.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.targets[nodes[middle]] < row) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** @param {Int32Array} order Pre-order. @param {number} deepest */
  _byDepth(order, deepest) {
    const { depths } = this.tree;
    const counts = new Int32Array(deepest + 1);
    for (const number of order) counts[depths[number]] += 1;
    const byDepth = Array.from(counts, (count) => new Int32Array(count));
    counts.fill(0);
    for (const number of order) byDepth[depths[number]][counts[depths[number]]++] = number;
    return byDepth;
  }
}

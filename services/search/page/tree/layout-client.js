// @ts-check
/** Asks a worker for layouts: one request at a time, and what comes in between goes into the next one. */

import { LayoutState } from "./layout.js";

/** @typedef {import("./layout.js").Layout & {ms: number}} TimedLayout */
/** @typedef {import("./shown-tree.js").ShownTree} ShownTree */

/** A layout is asked for no more often: each moves the tree. */
const PAUSE_MS = 120;

/** Which part of a tree the next request has to carry. Pure. */
export class LayoutQueue {
  constructor() {
    this.sent = 0;
    this.busy = false;
  }

  /**
   * The next request; null: nothing is new, or one is under way.
   * @param {readonly number[]} parents
   */
  next(parents) {
    if (this.busy || parents.length === this.sent) return null;
    const request = { from: this.sent, parents: Int32Array.from(parents.slice(this.sent)) };
    this.sent = parents.length;
    this.busy = true;
    return request;
  }

  answered() {
    this.busy = false;
  }
}

export class LayoutClient {
  /**
   * @param {ShownTree} tree
   * @param {(layout: TimedLayout) => void} onLayout
   */
  constructor(tree, onLayout) {
    this._tree = tree;
    this._onLayout = onLayout;
    this._queue = new LayoutQueue();
    this._asked = -Infinity;
    /** @type {ReturnType<typeof setTimeout>|null} */
    this._timer = null;
    /** Lays out here where there is no worker. @type {LayoutState|null} */
    this._here = null;
    /** @type {Worker|null} */
    this._worker = null;
    this._start();
  }

  /** Ask for a layout, where the tree has grown since the last one. */
  ask() {
    if (this._timer !== null || this._queue.busy) return;
    const wait = Math.max(0, this._asked + PAUSE_MS - performance.now());
    this._timer = setTimeout(() => this._send(), wait);
  }

  close() {
    this._worker?.terminate();
    if (this._timer !== null) clearTimeout(this._timer);
    this._onLayout = () => {};
  }

  _start() {
    try {
      this._worker = new Worker(new URL("./layout-worker.js", import.meta.url), { type: "module" });
      this._worker.onmessage = (event) => this._take(event.data);
      this._worker.onerror = () => this._goOnHere();
    } catch {
      this._goOnHere();
    }
  }

  /** A browser may refuse workers, to a page from a file for one. A tree that is laid out slowly is better than none. */
  _goOnHere() {
    this._worker?.terminate();
    this._worker = null;
    this._here = new LayoutState();
    this._queue = new LayoutQueue();
    this.ask();
  }

  _send() {
    this._timer = null;
    const request = this._queue.next(this._tree.parents);
    if (request === null) return;
    this._asked = performance.now();
    if (this._here) this._take(this._here.answer(request));
    else this._worker?.postMessage(request, [request.parents.buffer]);
  }

  /** @param {TimedLayout} layout */
  _take(layout) {
    this._queue.answered();
    this._onLayout(layout);
    this.ask();
  }
}

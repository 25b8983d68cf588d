// @ts-check
/** Lays trees out, off the main thread. One request is answered by one layout. */

import { LayoutState } from "./layout.js";

const state = new LayoutState();

self.onmessage = (/** @type {MessageEvent<{from: number, parents: Int32Array}>} */ event) => {
  const layout = state.answer(event.data);
  /** @type {any} */ (self).postMessage(layout, [layout.rows.buffer, layout.order.buffer]);
};

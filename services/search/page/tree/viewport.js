// @ts-check
/**
 * Where the tree stands on the screen. Pure.
 *
 * Rows grow with the zoom; columns do so only once they are wider than they have to be for the whole tree to fit. So a tree of
 * thousands of rows and a few columns fills the canvas rather than being a thin stripe in it, and texts keep their size.
 */

/** Height of a row and width of a column at a zoom of 1, px. */
const ROW = 22;
const COLUMN = 210;

const MAX_ZOOM = 2.4;
const MAX_FITTED = 1.15;
/** Smaller than this a small tree is not made for the sake of its width: it could not be read. */
const LEAST_FITTED = 0.5;
const WIDEST_COLUMN = 1.7;
/** Space around a tree that was fitted, px; on the right there is the text of the last column. */
const PAD = { left: 28, right: 150, top: 40, bottom: 40 };

/**
 * @typedef {object} View
 * @property {number} zoom
 * @property {number} least The least width of a column, as a part of COLUMN.
 * @property {number} x Where the root's column begins, px.
 * @property {number} y Where row 0 stands, px.
 */

/** @typedef {{width: number, height: number}} Size */
/** @typedef {{rows: number, depth: number}} Extent Rows from top to bottom, and the deepest column. */

/** @param {View} view */
export const rowPx = (view) => ROW * view.zoom;

/** @param {View} view */
export const columnPx = (view) => COLUMN * Math.max(view.least, Math.min(view.zoom, WIDEST_COLUMN));

/** The view that shows all. @param {Extent} extent @param {Size} size @returns {View} */
export function fit(extent, size) {
  const right = Math.min(PAD.right, size.width * 0.3);
  const across = Math.max(1, size.width - PAD.left - right);
  const down = Math.max(1, size.height - PAD.top - PAD.bottom);
  const least = Math.min(MAX_FITTED, across / (COLUMN * Math.max(extent.depth, 1)));
  // Columns are as wide as the zoom makes them: where few rows allow a larger one, the last column has to be in sight as well.
  const zoom = Math.min(Math.max(least, LEAST_FITTED), down / (ROW * Math.max(extent.rows, 0.001)));
  return { zoom, least, x: PAD.left, y: (size.height - extent.rows * ROW * zoom) / 2 };
}

/**
 * Zoom by a factor; what is at the point (px) stays there.
 * @param {View} view @param {number} factor @param {number} atX @param {number} atY @param {Extent} extent @param {Size} size
 * @returns {View}
 */
export function zoomAt(view, factor, atX, atY, extent, size) {
  const least = Math.min(1, fit(extent, size).zoom);
  const zoom = Math.min(MAX_ZOOM, Math.max(least * 0.8, view.zoom * factor));
  const next = { ...view, zoom };
  next.x = atX - ((atX - view.x) / columnPx(view)) * columnPx(next);
  next.y = atY - ((atY - view.y) / rowPx(view)) * rowPx(next);
  return next;
}

/** Move by so many px; a corner of the tree always stays in sight. @param {View} view @param {number} dx @param {number} dy
 * @param {Extent} extent @param {Size} size @returns {View} */
export function pan(view, dx, dy, extent, size) {
  const [wide, high] = [extent.depth * columnPx(view), extent.rows * rowPx(view)];
  const between = (/** @type {number} */ value, /** @type {number} */ low, /** @type {number} */ high) =>
    Math.min(high, Math.max(low, value));
  return {
    ...view,
    x: between(view.x + dx, 60 - wide - COLUMN / 2, size.width - 60),
    y: between(view.y + dy, 60 - high, size.height - 60),
  };
}

/**
 * The view that has the node in sight: unchanged where it is, otherwise moved so that it is in the middle.
 * @param {View} view @param {{row: number, depth: number}} node @param {Size} size @returns {View}
 */
export function reveal(view, node, size) {
  const near = rowPx(view) < 9 ? zoomTo(view, 0.8, node, size) : view;
  const [x, y] = [near.x + node.depth * columnPx(near), near.y + node.row * rowPx(near)];
  const inside = near === view && x > 16 && x < size.width - 60 && y > 24 && y < size.height - 24;
  if (inside) return view;
  const across = x > 16 && x < size.width - 160 ? near.x : near.x + size.width * 0.4 - x;
  return { ...near, x: across, y: near.y + size.height / 2 - y };
}

/** @param {View} view @param {number} zoom @param {{row: number, depth: number}} node @param {Size} size @returns {View} */
function zoomTo(view, zoom, node, size) {
  const next = { ...view, zoom };
  return { ...next, y: size.height / 2 - node.row * rowPx(next) };
}

/**
 * A view on its way to another, so far as it comes in this time.
 * @param {View} now @param {View} target @param {number} part 0: stays, 1: arrives.
 * @returns {View}
 */
export function approach(now, target, part) {
  const between = (/** @type {keyof View} */ name) => now[name] + (target[name] - now[name]) * part;
  return { zoom: between("zoom"), least: between("least"), x: between("x"), y: between("y") };
}

/** Whether nobody could see the difference. @param {View} a @param {View} b */
export function isNear(a, b) {
  const close = Math.abs(a.x - b.x) < 0.3 && Math.abs(a.y - b.y) < 0.3;
  return close && Math.abs(a.zoom / b.zoom - 1) < 0.001 && Math.abs(a.least / b.least - 1) < 0.001;
}

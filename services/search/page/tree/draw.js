// @ts-check
/**
 * Draws the tree: edges, nodes and labels, as much of them as can be told apart at this zoom, and only what is in sight.
 *
 * Edges are horizontal and vertical: thousands of them cost little, and stay legible where curves would be a grey cloud.
 */

import { drawNodes } from "./draw-nodes.js";
import { placeOf } from "./frame.js";
import { columnPx, rowPx } from "./viewport.js";

/** @typedef {import("./frame.js").Frame} Frame */

/** How far before its child an edge turns, px. */
const TURN = 14;
/** From this height of a row on, corners are rounded, px. */
const ROUND_ROW = 9;

/** @param {Frame} frame */
export function draw(frame) {
  const { context, size, ratio, palette } = frame;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.globalAlpha = 1;
  context.fillStyle = palette.background;
  context.fillRect(0, 0, size.width, size.height);
  drawEdges(frame);
  drawPath(frame, frame.explorer.answerPath, palette.answer, 2.5);
  if (frame.explorer.replay) drawPath(frame, frame.explorer.replay.path, palette.told, 2.5);
  drawPath(frame, frame.explorer.selectedPath, palette.accent, 1.75);
  drawNodes(frame);
}

/** @param {Frame} frame */
function drawEdges(frame) {
  const { context, explorer, palette, scene, view, size } = frame;
  const { children } = explorer.tree;
  const wide = columnPx(view);
  const high = rowPx(view);
  context.fillStyle = context.strokeStyle = palette.edge;
  context.lineWidth = 1;
  context.globalAlpha = explorer.matches === null ? 1 : 0.45;
  const rounded = high >= ROUND_ROW;
  if (rounded) context.beginPath();
  for (let depth = 0; depth < scene.byDepth.length - 1; depth++) {
    const x = view.x + depth * wide;
    if (x > size.width || x + wide < 0) continue;
    for (const parent of scene.byDepth[depth]) {
      const placed = children[parent];
      if (placed.length === 0 || !explorer.isShown(parent)) continue;
      if (rounded) bracket(frame, parent, placed);
      else comb(frame, parent, placed);
    }
  }
  if (rounded) context.stroke();
}

/** The children of a node that have a place and may be in sight: those between two rows. @param {Frame} frame
 * @param {number} parent @param {readonly number[]} children */
function spanOf({ scene, view, size }, parent, children) {
  let last = children.length - 1;
  while (last >= 0 && children[last] >= scene.count) last -= 1;
  if (last < 0) return null;
  const high = rowPx(view);
  const row = scene.rows[parent];
  const top = Math.min(row, scene.rows[children[0]]);
  const bottom = Math.max(row, scene.rows[children[last]]);
  if (view.y + bottom * high < -high || view.y + top * high > size.height + high) return null;
  return last;
}

/** The edges of a node with rounded corners, added to the path. @param {Frame} frame @param {number} parent
 * @param {readonly number[]} children */
function bracket(frame, parent, children) {
  const last = spanOf(frame, parent, children);
  if (last === null) return;
  for (let place = 0; place <= last; place++) {
    if (frame.explorer.isShown(children[place])) elbow(frame, parent, children[place]);
  }
}

/** One edge, added to the path; nothing where no part of it is in sight. @param {Frame} frame @param {number} parent
 * @param {number} child */
function elbow(frame, parent, child) {
  const { context, size } = frame;
  const from = placeOf(frame, parent);
  const to = placeOf(frame, child);
  if (Math.max(from.y, to.y) < -4 || Math.min(from.y, to.y) > size.height + 4) return;
  const turn = Math.max((from.x + to.x) / 2, to.x - TURN);
  const corner = Math.min(5, Math.abs(to.y - from.y) / 2, to.x - turn);
  context.moveTo(from.x, from.y);
  if (corner < 0.5) {
    context.lineTo(to.x, to.y);
    return;
  }
  context.arcTo(turn, from.y, turn, to.y, corner);
  context.arcTo(turn, to.y, to.x, to.y, corner);
  context.lineTo(to.x, to.y);
}

/** The edges of a node as plain lines, those that would lie on one another left out. @param {Frame} frame
 * @param {number} parent @param {readonly number[]} children */
function comb(frame, parent, children) {
  const last = spanOf(frame, parent, children);
  if (last === null) return;
  const { context, explorer, scene, view, size } = frame;
  const [from, to] = [placeOf(frame, parent).x, placeOf(frame, children[0]).x];
  const turn = Math.round(Math.max((from + to) / 2, to - TURN));
  const start = Math.round(view.y + scene.rows[parent] * rowPx(view));
  let [top, bottom, drawn] = [start, start, NaN];
  for (let place = 0; place <= last; place++) {
    if (!explorer.isShown(children[place])) continue;
    const y = Math.round(view.y + scene.rows[children[place]] * rowPx(view));
    top = Math.min(top, y);
    bottom = Math.max(bottom, y);
    if (y === drawn || y < 0 || y > size.height) continue;
    context.fillRect(turn, y, to - turn, 1);
    drawn = y;
  }
  if (drawn !== drawn && top === bottom) return;
  context.fillRect(from, start, turn - from, 1);
  top = Math.max(top, 0);
  context.fillRect(turn, top, 1, Math.min(bottom, size.height) - top + 1);
}

/** @param {Frame} frame @param {Iterable<number>} numbers Those of a path, in any order. @param {string} colour
 * @param {number} width */
function drawPath(frame, numbers, colour, width) {
  const { context, explorer, scene } = frame;
  context.globalAlpha = 1;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  for (const number of numbers) {
    const parent = explorer.tree.parents[number];
    if (parent >= 0 && number < scene.count && explorer.isShown(number)) elbow(frame, parent, number);
  }
  context.stroke();
}

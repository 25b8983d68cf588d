// @ts-check
/**
 * Draws the tree: edges, nodes and labels, as much of them as can be told apart at this zoom, and only what is in sight.
 *
 * Edges are horizontal and vertical: thousands of them cost little, and stay legible where curves would be a grey cloud.
 */

import { drawMarks, drawNodes } from "./draw-nodes.js";
import { placeOf } from "./frame.js";
import { drawOverview } from "./overview.js";
import { columnPx, rowPx } from "./viewport.js";

/** @typedef {import("./frame.js").Frame} Frame */

/** How far before its child an edge turns, px. */
const TURN = 14;
/** Below this height of a row the tree is drawn as from afar, px. */
const OVERVIEW_ROW = 7;

/** @param {Frame} frame @param {import("./raster.js").Raster} raster Kept from picture to picture. */
export function draw(frame, raster) {
  const { context, explorer, palette, size, ratio } = frame;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.globalAlpha = 1;
  const afar = rowPx(frame.view) < OVERVIEW_ROW;
  if (afar) {
    drawOverview(frame, raster);
  } else {
    context.fillStyle = palette.background;
    context.fillRect(0, 0, size.width, size.height);
    drawEdges(frame);
  }
  drawPath(frame, explorer.answerPath, palette.answer, 2.5);
  if (explorer.replay) drawPath(frame, explorer.replay.path, palette.told, 2.5);
  drawPath(frame, explorer.selectedPath, palette.accent, 1.75);
  if (afar) drawMarks(frame);
  else drawNodes(frame);
}

/** @param {Frame} frame */
function drawEdges(frame) {
  const { context, explorer, palette, scene, view, size } = frame;
  const { children } = explorer.tree;
  const wide = columnPx(view);
  context.strokeStyle = palette.edge;
  context.lineWidth = 1;
  context.globalAlpha = explorer.matches === null ? 1 : 0.45;
  context.beginPath();
  for (let depth = 0; depth < scene.byDepth.length - 1; depth++) {
    const x = view.x + depth * wide;
    if (x > size.width || x + wide < 0) continue;
    for (const parent of scene.byDepth[depth]) {
      const placed = children[parent];
      if (placed.length === 0 || !explorer.isShown(parent)) continue;
      bracket(frame, parent, placed);
    }
  }
  context.stroke();
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

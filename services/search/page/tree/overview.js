// @ts-check
/** Draws the tree from afar: rows are a few pixels or less, so edges are lines and nodes dots, set as pixels. */

import { DIM, isLit } from "./frame.js";
import { radiusOf } from "./draw-nodes.js";
import { scoreColour } from "./palette.js";
import { mixed, pixelOf } from "./raster.js";
import { columnPx, rowPx } from "./viewport.js";

/** @typedef {import("./frame.js").Frame} Frame */
/** @typedef {import("./raster.js").Raster} Raster */

/**
 * The colours of dots: by score, then without one, then failed; the same again, dimmed.
 * @param {import("./palette.js").Palette} palette
 */
function dotColours(palette) {
  const plain = [...palette.scores, palette.unscored, palette.failed].map(pixelOf);
  const background = pixelOf(palette.background);
  return [...plain, ...plain.map((colour) => mixed(background, colour, DIM * 1.5))];
}

/** @param {Frame} frame @param {Raster} raster */
export function drawOverview(frame, raster) {
  const { context, explorer, palette, size, ratio } = frame;
  const background = pixelOf(palette.background);
  raster.begin(Math.round(size.width * ratio), Math.round(size.height * ratio), background);
  // The more lines lie side by side, the lighter they are, so that the dots stand out.
  const strength = Math.min(1, 0.5 + rowPx(frame.view) / 8) * (explorer.matches === null ? 1 : 0.5);
  drawCombs(frame, raster, mixed(background, pixelOf(palette.edge), strength));
  drawDots(frame, raster, dotColours(palette));
  raster.show(context);
}

/** Each parent's edges: a line down, and one across to each child that has a line of pixels to itself. @param {Frame} frame
 * @param {Raster} raster @param {number} colour */
function drawCombs({ explorer, scene, view, ratio }, raster, colour) {
  const [wide, high, left, top] = [columnPx(view) * ratio, rowPx(view) * ratio, view.x * ratio, view.y * ratio];
  const { children } = explorer.tree;
  const { rows, columns } = scene;
  const line = Math.max(1, Math.round(ratio));
  const turnBefore = Math.min(wide / 2, 14 * ratio);
  const held = explorer.replay !== null;
  for (let parent = 0; parent < scene.count; parent++) {
    const under = children[parent];
    if (under.length === 0 || (held && !explorer.isShown(parent))) continue;
    const from = Math.round(left + columns[parent] * wide);
    if (from > raster.width || from + wide < 0) continue;
    const start = Math.round(top + rows[parent] * high);
    let [least, most, drawn, turn] = [start, start, NaN, from];
    for (const child of under) {
      if (child >= scene.count || (held && !explorer.isShown(child))) continue;
      const y = Math.round(top + rows[child] * high);
      if (y === drawn) continue;
      const to = Math.round(left + columns[child] * wide);
      turn = Math.round(to - turnBefore);
      least = Math.min(least, y);
      most = Math.max(most, y);
      raster.rect(turn, y, to - turn, line, colour);
      drawn = y;
    }
    if (turn === from) continue;
    raster.rect(from, start, turn - from, line, colour);
    raster.rect(turn, least, line, most - least + line, colour);
  }
}

/** @param {Frame} frame @param {Raster} raster @param {readonly number[]} colours */
function drawDots(frame, raster, colours) {
  const { explorer, scene, view, ratio } = frame;
  const [wide, high, left, top] = [columnPx(view) * ratio, rowPx(view) * ratio, view.x * ratio, view.y * ratio];
  const half = colours.length / 2;
  const { nodes } = explorer.tree;
  const held = explorer.replay !== null;
  for (let depth = 0; depth < scene.byDepth.length; depth++) {
    const { from, to } = scene.between(depth, (-10 - view.y) / rowPx(view), (frame.size.height + 10 - view.y) / rowPx(view));
    let drawn = NaN;
    for (let place = from; place < to; place++) {
      const number = scene.byDepth[depth][place];
      if (held && !explorer.isShown(number)) continue;
      const y = Math.round(top + scene.rows[number] * high);
      const lit = isLit(explorer, number);
      // Of several on one line of pixels the first is drawn, and any that is meant.
      if (y === drawn && (explorer.matches === null || !lit)) continue;
      drawn = y;
      const { state, prm_score } = nodes[number];
      const colour = state === "failed" ? half - 1 : prm_score === null ? half - 2 : scoreColour(prm_score);
      const side = Math.max(2, Math.round(radiusOf(frame, number) * 2 * ratio));
      raster.dot(Math.round(left + scene.columns[number] * wide), y, side, colours[lit ? colour : colour + half]);
    }
  }
}

// @ts-check
/** Draws nodes and their labels. Colour says the PRM's score, size the visits, shape and marks the state. */

import { score } from "../lib/format.js";
import { DIM, isLit, placeOf } from "./frame.js";
import { scoreColour } from "./palette.js";
import { firstLine } from "./shown-tree.js";
import { columnPx, rowPx } from "./viewport.js";

/** @typedef {import("./frame.js").Frame} Frame */

/** Heights of a row, px, from which on all nodes have a label, and labels have a second line. */
const LABEL_ROW = 13;
const SECOND_ROW = 33;
const FONT = 11;
/** Width of a character of the labels' font, as a part of its size: monospaced fonts are all about so wide. */
const CHARACTER = 0.602;

/** @type {WeakMap<import("./shown-tree.js").NodeView, string>} */
const labels = new WeakMap();

/** @param {Frame} frame */
export function drawNodes(frame) {
  const numbers = nodesInSight(frame);
  /** @type {Map<string, number[]>} */
  const batches = new Map();
  for (const number of numbers) {
    const key = styleOf(frame, number);
    const batch = batches.get(key);
    if (batch) batch.push(number);
    else batches.set(key, [number]);
  }
  for (const [key, batch] of batches) drawBatch(frame, key, batch);
  for (const number of marked(frame)) drawMark(frame, number);
  drawLabels(frame, rowPx(frame.view) >= LABEL_ROW ? numbers : null);
}

/** What stands out, over a tree that is seen from afar. @param {Frame} frame */
export function drawMarks(frame) {
  for (const number of marked(frame)) drawMark(frame, number);
  drawLabels(frame, null);
}

/** What a node has at this zoom for a radius, px. @param {Frame} frame @param {number} number */
export function radiusOf({ explorer, view }, number) {
  const { visits } = explorer.countsOf(number);
  const size = Math.min(8.5, 3 + 0.85 * Math.log2(1 + visits));
  return Math.max(1, size * Math.min(1, 0.25 + (0.75 * rowPx(view)) / 20));
}

/** The nodes in sight. @param {Frame} frame */
function nodesInSight({ explorer, scene, view, size }) {
  const [wide, high] = [columnPx(view), rowPx(view)];
  /** @type {number[]} */
  const numbers = [];
  for (let depth = 0; depth < scene.byDepth.length; depth++) {
    const x = view.x + depth * wide;
    if (x < -wide || x > size.width + wide) continue;
    const { from, to } = scene.between(depth, (-10 - view.y) / high, (size.height + 10 - view.y) / high);
    for (const number of scene.byDepth[depth].subarray(from, to)) if (explorer.isShown(number)) numbers.push(number);
  }
  return numbers;
}

/** Nodes of one style are drawn at once: "dim", then "hollow", then the colour. @param {Frame} frame @param {number} number */
function styleOf({ explorer, palette }, number) {
  const node = explorer.tree.nodes[number];
  const dim = isLit(explorer, number) ? "" : "d";
  const hollow = node.state === "abandoned" ? "h" : node.state === "failed" ? "x" : "f";
  const colour =
    node.state === "failed"
      ? palette.failed
      : node.prm_score === null
        ? palette.unscored
        : palette.scores[scoreColour(node.prm_score)];
  return `${dim}${hollow}${colour}`;
}

/** @param {Frame} frame @param {string} key @param {readonly number[]} numbers */
function drawBatch(frame, key, numbers) {
  const { context, palette } = frame;
  const dim = key.startsWith("d");
  const shape = key[dim ? 1 : 0];
  context.globalAlpha = dim ? DIM : 1;
  context.fillStyle = shape === "h" ? palette.background : key.slice(dim ? 2 : 1);
  context.strokeStyle = key.slice(dim ? 2 : 1);
  context.lineWidth = 1.5;
  context.beginPath();
  for (const number of numbers) {
    const { x, y } = placeOf(frame, number);
    const radius = radiusOf(frame, number);
    if (shape === "x") cross(context, x, y, radius);
    else {
      context.moveTo(x + radius, y);
      context.arc(x, y, radius, 0, 2 * Math.PI);
    }
  }
  if (shape !== "x") context.fill();
  if (shape !== "f") context.stroke();
}

/** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {number} radius */
function cross(context, x, y, radius) {
  context.moveTo(x - radius, y - radius);
  context.lineTo(x + radius, y + radius);
  context.moveTo(x + radius, y - radius);
  context.lineTo(x - radius, y + radius);
}

/** Nodes with a ring or another mark. @param {Frame} frame */
function marked({ explorer, scene, hovered }) {
  const end = Math.max(-1, ...explorer.answerPath);
  const all = new Set([end, hovered, explorer.selected, ...(explorer.replay?.made ?? [])]);
  return [...all].filter((number) => number >= 0 && number < scene.count && explorer.isShown(number));
}

/** @param {Frame} frame @param {number} number */
function drawMark(frame, number) {
  const { context, explorer, palette } = frame;
  const { x, y } = placeOf(frame, number);
  const radius = Math.max(3, radiusOf(frame, number));
  const ring = (/** @type {string} */ colour, /** @type {number} */ gap, /** @type {number} */ width) => {
    context.globalAlpha = 1;
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, radius + gap, 0, 2 * Math.PI);
    context.stroke();
  };
  if (number === Math.max(-1, ...explorer.answerPath)) ring(palette.answer, 3, 2.5);
  if (explorer.replay?.made.includes(number)) ring(palette.told, 3, 2);
  if (number === frame.hovered) ring(palette.muted, 3, 1.5);
  if (number === explorer.selected) ring(palette.accent, 3, 2.5);
}

/** @param {Frame} frame @param {readonly number[]|null} all Nodes with a label; null: those that stand out. */
function drawLabels(frame, all) {
  const { context, explorer, palette, view } = frame;
  const numbers = all ?? apart(frame, [...new Set([frame.hovered, explorer.selected, ...[...explorer.answerPath].reverse()])]);
  context.textBaseline = "middle";
  context.font = `${FONT}px ${palette.mono}`;
  const room = columnPx(view);
  for (const number of numbers) {
    const node = explorer.tree.nodes[number];
    const left = radiusOf(frame, number) + 6;
    const leaf = explorer.tree.children[number].length === 0;
    const width = all ? room - left - (leaf ? 16 : 34) : 220;
    const most = Math.floor(width / (FONT * CHARACTER));
    if (most >= 4) drawLabel(frame, number, left, clip(labelOf(node), most));
  }
}

/** Of nodes that have a label at any zoom, those whose labels do not lie on one another. @param {Frame} frame
 * @param {readonly number[]} numbers The weightiest first. */
function apart(frame, numbers) {
  /** @type {{x: number, y: number}[]} */
  const taken = [];
  return numbers.filter((number) => {
    if (number < 0 || number >= frame.scene.count || !frame.explorer.isShown(number)) return false;
    const place = placeOf(frame, number);
    if (taken.some((each) => Math.abs(each.y - place.y) < FONT + 4 && Math.abs(each.x - place.x) < 240)) return false;
    taken.push(place);
    return true;
  });
}

/** @param {Frame} frame @param {number} number @param {number} left @param {string} text */
function drawLabel(frame, number, left, text) {
  const { context, explorer, palette, view } = frame;
  const { x, y } = placeOf(frame, number);
  const node = explorer.tree.nodes[number];
  const second = rowPx(view) >= SECOND_ROW && number > 0;
  const plain = number !== explorer.selected && number !== frame.hovered;
  context.globalAlpha = isLit(explorer, number) || !plain ? 1 : DIM * 1.6;
  // The edge to the children passes behind.
  context.fillStyle = palette.background;
  context.fillRect(x + left - 2, y - FONT * 0.7, text.length * FONT * CHARACTER + 4, FONT * 1.4);
  context.fillStyle = node.state === "failed" || node.state === "abandoned" ? palette.muted : palette.text;
  context.fillText(text, x + left, y);
  if (!second) return;
  const { visits, q } = explorer.countsOf(number);
  context.fillStyle = palette.muted;
  context.fillText(`${score(node.prm_score)} · ${visits}× · Q ${score(q)}`, x + left, y + FONT * 1.4);
}

/** @param {import("./shown-tree.js").NodeView} node */
function labelOf(node) {
  let label = labels.get(node);
  if (label === undefined) {
    const answer = node.answer === null ? "" : ` → ${node.answer.split("\n", 1)[0]}`;
    label = node.depth === 0 ? "Problem" : `${firstLine(node.text)}${answer}`;
    labels.set(node, label);
  }
  return label;
}

/** @param {string} text @param {number} most */
function clip(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

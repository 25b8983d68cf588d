// @ts-check
/** What is drawn in one go, and where. */

import { columnPx, rowPx } from "./viewport.js";

/** @typedef {import("./explorer.js").Explorer} Explorer */
/** @typedef {import("./scene.js").Scene} Scene */
/** @typedef {import("./viewport.js").View} View */
/** @typedef {import("./palette.js").Palette} Palette */

/**
 * @typedef {object} Frame
 * @property {CanvasRenderingContext2D} context
 * @property {Explorer} explorer
 * @property {Scene} scene
 * @property {View} view
 * @property {import("./viewport.js").Size} size
 * @property {number} ratio Device pixels of a px.
 * @property {Palette} palette
 * @property {number} hovered Number of a node; -1: none.
 */

/** Dimmed things are so strong. */
export const DIM = 0.16;

/** Where a node stands on the screen. @param {Frame} frame @param {number} number */
export function placeOf({ scene, view }, number) {
  return { x: view.x + scene.columns[number] * columnPx(view), y: view.y + scene.rows[number] * rowPx(view) };
}

/** Whether a filter leaves the node bright. @param {Explorer} explorer @param {number} number */
export function isLit(explorer, number) {
  return explorer.matches === null || explorer.matches.lit[number] === 1;
}

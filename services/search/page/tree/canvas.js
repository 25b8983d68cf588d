// @ts-check
/**
 * The tree on a canvas. One loop draws, and only when something has changed; layout is a worker's.
 *
 * Until somebody moves it, the view shows all of the tree, however it grows; after that, what is in the middle stays there.
 */

import { html, useEffect, useRef } from "../vendor/preact-htm.js";
import { Button, useId } from "../lib/ui.js";
import { draw } from "./draw.js";
import { listen } from "./gestures.js";
import { LayoutClient } from "./layout-client.js";
import { Legend } from "./legend.js";
import { readPalette } from "./palette.js";
import { Raster } from "./raster.js";
import { Scene } from "./scene.js";
import { approach, columnPx, fit, isNear, pan, reveal, rowPx, zoomAt } from "./viewport.js";

/** @typedef {import("./explorer.js").Explorer} Explorer */
/** @typedef {import("./viewport.js").View} View */

/** After so long a movement has gone 63% of its way, ms. */
const PACE_MS = 90;
/** A pointer picks nodes that are no further away, px. */
const REACH = 14;

class TreeCanvas {
  /** @param {HTMLCanvasElement} canvas @param {Explorer} explorer @param {(id: string) => void} onSelect */
  constructor(canvas, explorer, onSelect) {
    this._canvas = canvas;
    this._explorer = explorer;
    this._onSelect = onSelect;
    this._context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { alpha: false }));
    this._scene = new Scene(explorer.tree);
    this._size = { width: canvas.clientWidth, height: canvas.clientHeight };
    this._palette = readPalette(canvas);
    this._raster = new Raster();
    /** Shown now, and where it is going. @type {View} */
    this._view = fit(this._scene.extent, this._size);
    this._target = this._view;
    /** The view follows the tree as it grows. */
    this._follows = true;
    this._hovered = -1;
    /** A step has been drawn. */
    this._isBegun = false;
    this._frame = 0;
    this._drawn = 0;
    this._selected = explorer.selected;
    this._replays = false;
    this._still = matchMedia("(prefers-reduced-motion: reduce)");
    this._layouts = new LayoutClient(explorer.tree, (layout) => this._takeLayout(layout));
    this._ends = [explorer.subscribe(() => this._onChange()), listen(canvas, this._actions()), this._watchSize(), this._watchColours()];
    this._onChange();
  }

  close() {
    for (const end of this._ends) end();
    this._layouts.close();
    cancelAnimationFrame(this._frame);
  }

  /** Show all of it, and go on doing so while it grows. */
  fit() {
    this._follows = true;
    this._target = fit(this._scene.extent, this._size);
    this._stale();
  }

  /** @param {number} factor */
  zoom(factor) {
    this._zoom(factor, this._size.width / 2, this._size.height / 2, false);
  }

  _onChange() {
    if (this._explorer.tree.size > this._scene.count) this._layouts.ask();
    if (this._selected !== this._explorer.selected) {
      this._selected = this._explorer.selected;
      this._reveal();
    }
    const replays = this._explorer.replay !== null;
    // A replay is seen whole: it may go on anywhere.
    if (replays && !this._replays) this.fit();
    this._replays = replays;
    this._stale();
  }

  _reveal() {
    const number = this._explorer.selected;
    if (number < 0 || number >= this._scene.count) return;
    const view = reveal(this._target, { row: this._scene.targets[number], depth: this._explorer.tree.depths[number] }, this._size);
    if (view === this._target) return;
    this._target = view;
    this._follows = false;
  }

  /** @param {import("./layout-client.js").TimedLayout} layout */
  _takeLayout(layout) {
    performance.measure("tree-layout", { start: performance.now() - layout.ms, duration: layout.ms });
    performance.clearMeasures("tree-layout");
    const anchor = this._follows ? -1 : this._anchor();
    const before = anchor < 0 ? 0 : this._scene.targets[anchor];
    const first = this._scene.count === 0;
    this._scene.take(layout, this._still.matches || first);
    if (this._follows) this._target = fit(this._scene.extent, this._size);
    else if (anchor >= 0) this._target = { ...this._target, y: this._target.y - (this._scene.targets[anchor] - before) * rowPx(this._target) };
    if (first) {
      this._view = this._target;
      // What the address names may not have been there before.
      if (this._explorer.selected > 0) this._reveal();
    }
    this._stale();
  }

  /** The node that stays where it is while the tree grows: the selected one where it is in sight, otherwise that in the middle. */
  _anchor() {
    const { _scene: scene, _explorer: explorer, _target: view, _size: size } = this;
    const y = (/** @type {number} */ number) => view.y + scene.targets[number] * rowPx(view);
    const { selected } = explorer;
    if (selected >= 0 && selected < scene.count && y(selected) > 0 && y(selected) < size.height) return selected;
    const depth = Math.round((size.width / 2 - view.x) / columnPx(view));
    return scene.nearest(Math.max(0, Math.min(scene.extent.depth, depth)), (size.height / 2 - view.y) / rowPx(view));
  }

  /** Something has changed: draw at the next frame. */
  _stale() {
    this._frame ||= requestAnimationFrame((now) => this._tick(now));
  }

  /** @param {number} now ms */
  _tick(now) {
    this._frame = 0;
    const part = this._still.matches ? 1 : 1 - Math.exp(-Math.min(50, now - this._drawn || 16) / PACE_MS);
    this._drawn = now;
    const moves = this._scene.advance(part);
    this._view = approach(this._view, this._target, part);
    if (isNear(this._view, this._target)) this._view = this._target;
    this._draw();
    if (moves || this._view !== this._target) this._stale();
    else this._drawn = 0;
  }

  _draw() {
    const ratio = Math.min(3, devicePixelRatio || 1);
    const [width, height] = [Math.round(this._size.width * ratio), Math.round(this._size.height * ratio)];
    if (this._canvas.width !== width || this._canvas.height !== height) Object.assign(this._canvas, { width, height });
    if (!this._isBegun && this._scene.count > 1) {
      this._isBegun = true;
      performance.mark("tree-first-node");
    }
    draw({ context: this._context, explorer: this._explorer, scene: this._scene, view: this._view, size: this._size, ratio, palette: this._palette, hovered: this._hovered }, this._raster);
  }

  /** @returns {import("./gestures.js").Actions} */
  _actions() {
    return {
      pan: (dx, dy) => this._moveTo(pan(this._target, dx, dy, this._scene.extent, this._size), true),
      zoom: (factor, x, y) => this._zoom(factor, x, y, true),
      pick: (x, y) => {
        const number = this._hit(x, y);
        if (number >= 0) this._onSelect(this._explorer.tree.nodes[number].id);
      },
      hover: (x, y) => this._hover(x === null ? -1 : this._hit(x, y)),
      step: (key) => this._step(key),
      fit: () => this.fit(),
    };
  }

  /** @param {number} factor @param {number} x @param {number} y @param {boolean} atOnce */
  _zoom(factor, x, y, atOnce) {
    this._moveTo(zoomAt(this._target, factor, x, y, this._scene.extent, this._size), atOnce);
  }

  /** @param {View} view @param {boolean} atOnce */
  _moveTo(view, atOnce) {
    this._follows = false;
    this._target = view;
    if (atOnce) this._view = view;
    this._stale();
  }

  /** @param {number} number */
  _hover(number) {
    if (number === this._hovered) return;
    this._hovered = number;
    this._canvas.classList.toggle("pointing", number >= 0);
    this._stale();
  }

  /** The node at a point; -1: none. @param {number} x @param {number} y */
  _hit(x, y) {
    const { _scene: scene, _view: view } = this;
    const row = (y - view.y) / rowPx(view);
    let [best, least] = [-1, REACH];
    const column = (x - view.x) / columnPx(view);
    for (const depth of [Math.floor(column), Math.ceil(column)]) {
      const number = scene.nearest(depth, row);
      if (number < 0 || !this._explorer.isShown(number)) continue;
      const across = x - (view.x + scene.columns[number] * columnPx(view));
      const down = Math.abs(y - (view.y + scene.rows[number] * rowPx(view)));
      // A label belongs to its node.
      const onLabel = rowPx(view) >= 13 && across > 0 && across < columnPx(view) - 30 && down < rowPx(view) / 2;
      const far = onLabel ? 0 : Math.hypot(across, down);
      if (far < least) [best, least] = [number, far];
    }
    return best;
  }

  /** Select a neighbour of the selected node. @param {"up"|"down"|"left"|"right"} key */
  _step(key) {
    const { tree, selected } = this._explorer;
    const at = Math.max(0, selected);
    const level = this._scene.byDepth[tree.depths[at]] ?? [];
    const place = level.indexOf(at);
    const next = { left: tree.parents[at], right: tree.children[at].find((each) => this._explorer.isShown(each)), up: level[place - 1], down: level[place + 1] }[key];
    if (next !== undefined && next >= 0 && this._explorer.isShown(next)) this._onSelect(tree.nodes[next].id);
  }

  _watchSize() {
    const observer = new ResizeObserver(() => {
      this._size = { width: this._canvas.clientWidth, height: this._canvas.clientHeight };
      if (this._follows) this._view = this._target = fit(this._scene.extent, this._size);
      this._stale();
    });
    observer.observe(this._canvas);
    return () => observer.disconnect();
  }

  _watchColours() {
    const observer = new MutationObserver(() => {
      this._palette = readPalette(this._canvas);
      this._stale();
    });
    observer.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    return () => observer.disconnect();
  }
}

/** @param {{explorer: Explorer, onSelect: (id: string) => void}} props */
export function Canvas({ explorer, onSelect }) {
  const element = useRef(/** @type {HTMLCanvasElement|null} */ (null));
  const drawing = useRef(/** @type {TreeCanvas|null} */ (null));
  const keys = useId("tree-canvas-keys");
  const select = useRef(onSelect);
  select.current = onSelect;
  useEffect(() => {
    if (!element.current) return;
    const made = new TreeCanvas(element.current, explorer, (id) => select.current(id));
    drawing.current = made;
    return () => made.close();
  }, [explorer]);
  return html`<div class="tree-canvas">
    <canvas ref=${element} tabindex="0" role="img" aria-label="Map of the tree. The outline tells the same as a list." aria-describedby=${keys}></canvas>
    <p id=${keys} class="visually-hidden">Arrow keys go to the neighbours of the selected node, with Shift they move the map. Plus and minus zoom, 0 shows all.</p>
    <div class="tree-canvas-tools" role="group" aria-label="Zoom">
      <${Button} small aria-label="Zoom in" title="Zoom in (+)" onClick=${() => drawing.current?.zoom(1.5)}>+<//>
      <${Button} small aria-label="Zoom out" title="Zoom out (−)" onClick=${() => drawing.current?.zoom(1 / 1.5)}>−<//>
      <${Button} small title="Show all of the tree, and follow it (0)" onClick=${() => drawing.current?.fit()}>Fit<//>
    </div>
    <${Legend} />
  </div>`;
}

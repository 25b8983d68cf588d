// @ts-check
/** Mouse, touch, pen and keys on the canvas, told as: move, zoom, point at, pick, step to a neighbour, fit. */

/**
 * @typedef {object} Actions
 * @property {(dx: number, dy: number) => void} pan px
 * @property {(factor: number, x: number, y: number) => void} zoom About a point, px.
 * @property {(x: number, y: number) => void} pick
 * @property {(x: number|null, y: number) => void} hover null: the pointer has left.
 * @property {(key: "up"|"down"|"left"|"right") => void} step
 * @property {() => void} fit
 */

/** Nearer than this a press is no drag, px. */
const STILL = 4;
const KEY_PAN = 60;
const KEY_ZOOM = 1.3;

/** Listen on an element; returns what ends it. @param {HTMLElement} element @param {Actions} actions */
export function listen(element, actions) {
  const left = new AbortController();
  const options = { signal: left.signal };
  const pointers = new Pointers(element, actions);
  element.addEventListener("pointerdown", (event) => pointers.down(event), options);
  element.addEventListener("pointermove", (event) => pointers.move(event), options);
  element.addEventListener("pointerup", (event) => pointers.up(event, true), options);
  element.addEventListener("pointercancel", (event) => pointers.up(event, false), options);
  element.addEventListener("pointerleave", () => actions.hover(null, 0), options);
  element.addEventListener("wheel", (event) => onWheel(element, actions, event), { ...options, passive: false });
  element.addEventListener("keydown", (event) => onKey(element, actions, event), options);
  return () => left.abort();
}

/** Fingers and the mouse: one drags, two pinch. */
class Pointers {
  /** @param {HTMLElement} element @param {Actions} actions */
  constructor(element, actions) {
    this._element = element;
    this._actions = actions;
    /** @type {Map<number, {x: number, y: number}>} */
    this._at = new Map();
    /** Where a press began that may still be a click. @type {{x: number, y: number}|null} */
    this._pressed = null;
  }

  /** @param {PointerEvent} event */
  down(event) {
    if (event.button !== 0) return;
    const place = placeIn(this._element, event);
    this._element.setPointerCapture(event.pointerId);
    this._at.set(event.pointerId, place);
    this._pressed = this._at.size === 1 ? place : null;
  }

  /** @param {PointerEvent} event */
  move(event) {
    const place = placeIn(this._element, event);
    const before = this._at.get(event.pointerId);
    if (!before) {
      this._actions.hover(place.x, place.y);
      return;
    }
    if (this._pressed && Math.hypot(place.x - this._pressed.x, place.y - this._pressed.y) < STILL) return;
    this._pressed = null;
    const other = [...this._at].find(([id]) => id !== event.pointerId)?.[1];
    this._at.set(event.pointerId, place);
    if (!other) {
      this._actions.pan(place.x - before.x, place.y - before.y);
      return;
    }
    const [near, far] = [Math.hypot(before.x - other.x, before.y - other.y), Math.hypot(place.x - other.x, place.y - other.y)];
    this._actions.pan((place.x - before.x) / 2, (place.y - before.y) / 2);
    this._actions.zoom(far / Math.max(near, 1), (place.x + other.x) / 2, (place.y + other.y) / 2);
  }

  /** @param {PointerEvent} event @param {boolean} counts */
  up(event, counts) {
    if (!this._at.delete(event.pointerId)) return;
    if (counts && this._pressed) this._actions.pick(this._pressed.x, this._pressed.y);
    this._pressed = null;
  }
}

/** The wheel zooms, as maps do; with Shift it moves. @param {HTMLElement} element @param {Actions} actions
 * @param {WheelEvent} event */
function onWheel(element, actions, event) {
  event.preventDefault();
  const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : event.deltaMode === WheelEvent.DOM_DELTA_PAGE ? 400 : 1;
  const [across, down] = [event.deltaX * unit, event.deltaY * unit];
  if (event.shiftKey || Math.abs(across) > Math.abs(down)) {
    actions.pan(-(across || down), 0);
    return;
  }
  const { x, y } = placeIn(element, event);
  // A pinch on a touchpad comes as small steps with the control key.
  actions.zoom(Math.exp(-Math.max(-120, Math.min(120, down)) * (event.ctrlKey ? 0.01 : 0.0022)), x, y);
}

/** @param {HTMLElement} element @param {Actions} actions @param {KeyboardEvent} event */
function onKey(element, actions, event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const { clientWidth: width, clientHeight: height } = element;
  const arrows = { ArrowUp: [0, 1, "up"], ArrowDown: [0, -1, "down"], ArrowLeft: [1, 0, "left"], ArrowRight: [-1, 0, "right"] };
  const arrow = /** @type {Record<string, any>} */ (arrows)[event.key];
  if (arrow && event.shiftKey) actions.pan(arrow[0] * KEY_PAN, arrow[1] * KEY_PAN);
  else if (arrow) actions.step(arrow[2]);
  else if (event.key === "+" || event.key === "=") actions.zoom(KEY_ZOOM, width / 2, height / 2);
  else if (event.key === "-" || event.key === "_") actions.zoom(1 / KEY_ZOOM, width / 2, height / 2);
  else if (event.key === "0" || event.key === "f") actions.fit();
  else return;
  event.preventDefault();
}

/** @param {HTMLElement} element @param {MouseEvent} event */
function placeIn(element, event) {
  const box = element.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

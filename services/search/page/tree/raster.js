// @ts-check
/**
 * Pixels that are set one by one. Of thousands of dots and lines a few pixels wide, each costs a canvas's path more than its
 * pixels are worth; here they cost those alone.
 */

export class Raster {
  constructor() {
    /** @type {ImageData|null} */
    this._image = null;
    this._pixels = new Uint32Array(0);
    this.width = 0;
    this.height = 0;
  }

  /** Begin a picture. @param {number} width px @param {number} height px @param {number} colour */
  begin(width, height, colour) {
    if (this._image === null || this.width !== width || this.height !== height) {
      this._image = new ImageData(Math.max(1, width), Math.max(1, height));
      this._pixels = new Uint32Array(this._image.data.buffer);
      this.width = width;
      this.height = height;
    }
    this._pixels.fill(colour);
  }

  /** A rectangle, as much of it as is in the picture. @param {number} x @param {number} y @param {number} width
   * @param {number} height @param {number} colour */
  rect(x, y, width, height, colour) {
    const [left, right] = [Math.max(0, x), Math.min(this.width, x + width)];
    if (left >= right) return;
    const bottom = Math.min(this.height, y + height);
    for (let row = Math.max(0, y); row < bottom; row++) this._pixels.fill(colour, row * this.width + left, row * this.width + right);
  }

  /** A dot that is a square without its corners. @param {number} x Its middle. @param {number} y @param {number} side
   * @param {number} colour */
  dot(x, y, side, colour) {
    const [left, top] = [x - (side >> 1), y - (side >> 1)];
    const corner = side < 4 ? 0 : side < 8 ? 1 : Math.round(side * 0.2);
    for (let row = 0; row < side; row++) {
      const cut = Math.max(0, corner - Math.min(row, side - 1 - row));
      this.rect(left + cut, top + row, side - 2 * cut, 1, colour);
    }
  }

  /** Put the picture on a canvas of its size. @param {CanvasRenderingContext2D} context */
  show(context) {
    if (this._image) context.putImageData(this._image, 0, 0);
  }
}

/** A colour as a pixel has it. @param {string} colour #rrggbb */
export function pixelOf(colour) {
  const value = Number.parseInt(colour.slice(1, 7), 16) || 0;
  return ((255 << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
}

/** A pixel between two. @param {number} from @param {number} to @param {number} part 0: from, 1: to. */
export function mixed(from, to, part) {
  const channel = (/** @type {number} */ shift) => {
    const [a, b] = [(from >>> shift) & 255, (to >>> shift) & 255];
    return Math.round(a + (b - a) * part) << shift;
  };
  return ((255 << 24) | channel(16) | channel(8) | channel(0)) >>> 0;
}

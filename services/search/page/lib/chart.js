// @ts-check
/** Curves with 95 % intervals as SVG, and the same figures as a table: a chart never says anything that only eyes can read. */
import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { Details, useId } from "./ui.js";

/**
 * @typedef {{x: number, value: number|null, low?: number|null, high?: number|null, aside?: boolean, text: string}} Point
 *   aside: a hollow mark beside the line, which does not join it. text: the figure in words.
 * @typedef {{name: string, points: Point[]}} Series
 */

const HEIGHT = 250;
const ROOM = { left: 46, right: 14, top: 12, bottom: 34 };
const MARKS = ["circle", "square", "diamond", "triangle"];
const DODGE = 5;

/**
 * @param {{title: string, description: string, series: Series[], axis: string, nameOf: (x: number) => string, format: (y: number) => string, fullScale?: boolean}} props
 *   axis: what x is; nameOf: one x in words; format: a value at the y axis; fullScale: from 0 to 1 whatever the figures are.
 */
export function CurveChart({ title, description, series, axis, nameOf, format, fullScale = false }) {
  const box = useRef(/** @type {HTMLElement|null} */ (null));
  const width = useWidth(box);
  const drawn = series.map((each, place) => ({ ...each, place, points: each.points.filter((point) => point.value !== null) })).filter((each) => each.points.length > 0);
  const xs = [...new Set(drawn.flatMap((each) => each.points.map((point) => point.x)))].sort((a, b) => a - b);
  return html`<figure class="chart" ref=${box}>
    <figcaption><h3>${title}</h3>${drawn.length > 1 && html`<ul class="legend" aria-hidden="true">${drawn.map((each) => html`<li key=${each.name} class=${`series-${each.place}`}><${Key} place=${each.place} />${each.name}</li>`)}</ul>`}</figcaption>
    ${drawn.length === 0 ? html`<p class="muted">Nothing has been measured yet.</p>` : html`<${Plot} ...${{ title, description, drawn, xs, width, nameOf, format, fullScale }} />`}
    ${drawn.length > 0 && html`<${Details} summary="The figures as a table"><${FigureTable} ...${{ title, drawn, xs, axis, nameOf }} /><//>`}
  </figure>`;
}

/** @param {any} props */
function Plot({ title, description, drawn, xs, width, nameOf, format, fullScale }) {
  const id = useId("chart");
  const { least, most, ticks } = scale(drawn, fullScale);
  const inner = width - ROOM.left - ROOM.right;
  const at = (/** @type {number} */ x) => ROOM.left + (xs.length === 1 ? inner / 2 : 18 + (inner - 36) * (xs.indexOf(x) / (xs.length - 1)));
  const up = (/** @type {number} */ y) => ROOM.top + (HEIGHT - ROOM.top - ROOM.bottom) * (1 - (Math.max(least, Math.min(most, y)) - least) / (most - least));
  const every = Math.max(1, Math.ceil((xs.length * 54) / Math.max(1, inner)));
  return html`<svg class="plot" width=${width} height=${HEIGHT} viewBox=${`0 0 ${width} ${HEIGHT}`} role="img" aria-labelledby=${`${id}-title ${id}-desc`}>
    <title id=${`${id}-title`}>${title}</title>
    <desc id=${`${id}-desc`}>${description}</desc>
    ${ticks.map((tick) => html`<g key=${tick} class="grid"><line x1=${ROOM.left} x2=${width - ROOM.right} y1=${up(tick)} y2=${up(tick)} /><text x=${ROOM.left - 8} y=${up(tick) + 4} text-anchor="end">${format(tick)}</text></g>`)}
    ${xs.map((/** @type {number} */ x, /** @type {number} */ place) => place % every === 0 && html`<text key=${x} class="tick" x=${at(x)} y=${HEIGHT - 12} text-anchor="middle">${nameOf(x)}</text>`)}
    ${drawn.map((/** @type {any} */ each, /** @type {number} */ order) => html`<${Curve} key=${each.name} series=${each} shift=${(order - (drawn.length - 1) / 2) * DODGE} at=${at} up=${up} nameOf=${nameOf} />`)}
  </svg>`;
}

/** One series: a line through what served, intervals, marks that say their figure. @param {any} props */
function Curve({ series, shift, at, up, nameOf }) {
  const joined = series.points.filter((/** @type {Point} */ point) => !point.aside);
  const path = joined.map((/** @type {any} */ point, /** @type {number} */ place) => `${place ? "L" : "M"}${at(point.x) + shift} ${up(point.value)}`).join("");
  return html`<g class=${`curve series-${series.place}`}>
    <path class="line" d=${path} />
    ${series.points.map((/** @type {any} */ point) => {
      const x = at(point.x) + shift;
      return html`<g key=${`${point.x}${point.aside}`} class=${point.aside ? "aside" : ""}>
        <title>${`${series.name}, ${nameOf(point.x)}: ${point.text}`}</title>
        ${point.low != null && point.high != null && html`<path class="interval" d=${`M${x} ${up(point.low)}V${up(point.high)}M${x - 3} ${up(point.low)}h6M${x - 3} ${up(point.high)}h6`} />`}
        <${Mark} place=${series.place} x=${x} y=${up(point.value)} />
      </g>`;
    })}
  </g>`;
}

/** @param {{place: number, x: number, y: number}} props */
function Mark({ place, x, y }) {
  const kind = MARKS[place % MARKS.length];
  if (kind === "circle") return html`<circle class="mark" cx=${x} cy=${y} r="4" />`;
  if (kind === "square") return html`<rect class="mark" x=${x - 3.5} y=${y - 3.5} width="7" height="7" />`;
  return html`<path class="mark" d=${kind === "diamond" ? `M${x} ${y - 5}l5 5l-5 5l-5 -5z` : `M${x} ${y - 5}l5 9h-10z`} />`;
}

/** @param {{place: number}} props */
function Key({ place }) {
  return html`<svg width="22" height="12" class=${`curve series-${place}`}><path class="line" d="M0 6H22" /><${Mark} place=${place} x=${11} y=${6} /></svg>`;
}

/** @param {any} props */
function FigureTable({ title, drawn, xs, axis, nameOf }) {
  return html`<div class="scroll"><table>
    <caption class="visually-hidden">${title}</caption>
    <thead><tr><th scope="col">${axis}</th>${drawn.map((/** @type {Series} */ each) => html`<th scope="col" class="num" key=${each.name}>${each.name}</th>`)}</tr></thead>
    <tbody>${xs.map((/** @type {number} */ x) => html`<tr key=${x}><th scope="row">${nameOf(x)}</th>${drawn.map((/** @type {Series} */ each) => html`<td class="num" key=${each.name}>${each.points.filter((point) => point.x === x).map((point) => `${point.text}${point.aside ? ", not served" : ""}`).join("; ") || "–"}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

/** The range of the y axis with some room around the figures, and its ticks. @param {Series[]} drawn @param {boolean} fullScale */
function scale(drawn, fullScale) {
  const values = drawn.flatMap((each) => each.points.flatMap((point) => [point.value, point.low, point.high])).filter((value) => value != null);
  let [least, most] = fullScale ? [0, 1] : [Math.min(.../** @type {number[]} */ (values)), Math.max(.../** @type {number[]} */ (values))];
  const step = stepOf(Math.max(most - least, 0.08) / 4);
  most = Math.min(1, Math.ceil(most / step - 1e-9) * step);
  least = Math.max(0, Math.min(Math.floor(least / step + 1e-9) * step, most - 3 * step));
  const ticks = [];
  for (let tick = least; tick <= most + step / 10; tick += step) ticks.push(tick);
  return { least, most, ticks };
}

/** 1, 2 or 5 times a power of ten, not under `size`. @param {number} size */
function stepOf(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return (size / power <= 1 ? 1 : size / power <= 2 ? 2 : size / power <= 5 ? 5 : 10) * power;
}

/** The width that an element has now, in pixels. @param {{current: HTMLElement|null}} box */
function useWidth(box) {
  const [width, setWidth] = useState(560);
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setWidth(Math.max(220, Math.floor(element.clientWidth))));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return width;
}

// @ts-check
/** Python with its comments, strings, numbers and keywords told apart by colour. Text stays text. */
import { html } from "../vendor/preact-htm.js";

const KEYWORDS = "False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield";
const WORDS = new Set(KEYWORDS.split(" "));
const TOKEN = /(?<comment>#[^\n]*)|(?<string>[rbfRBF]{0,2}(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))|(?<number>\b\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)?\b)|(?<word>[A-Za-z_]\w*)/g;
/** Longer text is shown without colours: they are a comfort, and cost time. */
const MOST_CHARS = 20_000;

/** Pieces of the text, each with its kind; "" for the rest. @param {string} text @returns {{kind: string, text: string}[]} */
export function piecesOf(text) {
  if (text.length > MOST_CHARS) return [{ kind: "", text }];
  /** @type {{kind: string, text: string}[]} */
  const pieces = [];
  let at = 0;
  for (const found of text.matchAll(TOKEN)) {
    const groups = found.groups ?? {};
    const kind = groups.comment !== undefined ? "comment" : groups.string !== undefined ? "string" : groups.number !== undefined ? "number" : WORDS.has(found[0]) ? "keyword" : "";
    if (kind === "") continue;
    if (found.index > at) pieces.push({ kind: "", text: text.slice(at, found.index) });
    pieces.push({ kind, text: found[0] });
    at = found.index + found[0].length;
  }
  if (at < text.length) pieces.push({ kind: "", text: text.slice(at) });
  return pieces;
}

/** @param {{text: string}} props */
export function PythonCode({ text }) {
  return html`<code class="python">${piecesOf(text).map((piece, index) => (piece.kind ? html`<span key=${index} class=${`py-${piece.kind}`}>${piece.text}</span>` : piece.text))}</code>`;
}

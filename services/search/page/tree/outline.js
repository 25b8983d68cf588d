// @ts-check
/**
 * The tree as a list that folds: the canvas's accessible twin. Of thousands of rows only those on the screen are in the page.
 *
 * The list keeps the focus, and says by `aria-activedescendant` which row is meant.
 */

import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact-htm.js";
import { score } from "../lib/format.js";
import { isLit } from "./frame.js";
import { NODE_STATES } from "./node-states.js";
import { scoreColour } from "./palette.js";
import { findTyped, moveOf, rowsOnScreen, visibleRows } from "./rows.js";
import { firstLine } from "./shown-tree.js";
import { useShown } from "./use-explorer.js";

/** @typedef {import("./explorer.js").Explorer} Explorer */

const ROW_PX = 28;
const INDENT_PX = 11;
/** Deeper rows are not indented further. */
const MOST_INDENT = 14;
/** Letters that follow one another faster belong to one word, ms. */
const TYPING_MS = 700;

/** @param {{explorer: Explorer, onSelect: (id: string) => void}} props */
export function Outline({ explorer, onSelect }) {
  useShown(explorer);
  const box = useRef(/** @type {HTMLDivElement|null} */ (null));
  const [screen, setScreen] = useState({ top: 0, height: 600 });
  const rows = visibleRows(explorer.tree, explorer.closed, (number) => explorer.isShown(number));
  const place = rows.indexOf(explorer.selected);
  useScreen(box, setScreen);
  useSteady(box, rows);
  useRevealed(box, place, explorer.selectedId);
  const keys = useKeys(explorer, rows, Math.floor(screen.height / ROW_PX) - 1, onSelect);
  const { from, to } = rowsOnScreen({ ...screen, row: ROW_PX, count: rows.length });
  const drawn = rows.slice(from, to).map((number, each) => ({ number, place: from + each }));
  // What the focus is on has to be in the page.
  if (place >= 0 && (place < from || place >= to)) drawn.push({ number: explorer.selected, place });
  return html`<div class="tree-outline" ref=${box} role="tree" tabindex="0" aria-label="Outline of the tree" aria-activedescendant=${place >= 0 ? rowId(explorer.selected) : undefined} onKeyDown=${keys}>
    <div class="tree-rows" role="presentation" style=${{ height: `${rows.length * ROW_PX}px` }}>
      ${drawn.map((each) => html`<${Row} key=${each.number} explorer=${explorer} number=${each.number} place=${each.place} onSelect=${onSelect} />`)}
    </div>
  </div>`;
}

/** @param {{explorer: Explorer, number: number, place: number, onSelect: (id: string) => void}} props */
function Row({ explorer, number, place, onSelect }) {
  const { tree } = explorer;
  const node = tree.nodes[number];
  const depth = tree.depths[number];
  const open = !explorer.closed.has(number);
  const children = shownOf(explorer, tree.children[number]).length > 0;
  const siblings = number === 0 ? [0] : shownOf(explorer, tree.children[tree.parents[number]]);
  const toggle = (/** @type {Event} */ event) => {
    event.stopPropagation();
    explorer.fold(open ? { close: [number] } : { open: [number] });
  };
  const selected = number === explorer.selected;
  const classes = [
    "tree-row",
    selected ? "selected" : "",
    explorer.matches === null ? "" : isLit(explorer, number) ? "lit" : "dim",
    explorer.answerPath.has(number) ? "answer" : "",
  ];
  const { visits } = explorer.countsOf(number);
  return html`<div id=${rowId(number)} class=${classes.join(" ")} role="treeitem" aria-level=${depth + 1} aria-expanded=${children ? String(open) : undefined} aria-selected=${String(selected)}
      aria-setsize=${siblings.length} aria-posinset=${siblings.indexOf(number) + 1} aria-label=${wordsOf(explorer, number)}
      style=${{ top: `${place * ROW_PX}px`, paddingLeft: `${8 + Math.min(depth, MOST_INDENT) * INDENT_PX}px` }} onClick=${() => onSelect(node.id)}>
    <span class=${`tree-fold ${children ? (open ? "open" : "closed") : ""}`} aria-hidden="true" onClick=${children ? toggle : undefined}></span>
    <i class=${`tree-dot ${dotOf(node)}`} aria-hidden="true"></i>
    <span class="tree-text">${number === 0 ? "Problem" : firstLine(node.text)}${node.answer !== null && html`<span class="tree-answer"> → ${node.answer}</span>`}</span>
    <span class="tree-score">${node.prm_score === null ? "" : score(node.prm_score)}</span>
    <span class="tree-visits">${visits > 0 ? `${visits}×` : ""}</span>
  </div>`;
}

/** Those of the nodes that are shown. @param {Explorer} explorer @param {readonly number[]} numbers */
const shownOf = (explorer, numbers) => (explorer.replay === null ? numbers : numbers.filter((each) => explorer.isShown(each)));

/** @param {number} number */
const rowId = (number) => `tree-row-${number}`;

/** The class of a node's dot. @param {import("./shown-tree.js").NodeView} node */
function dotOf(node) {
  if (node.state === "failed") return "failed";
  const colour = node.prm_score === null ? "none" : `prm-${scoreColour(node.prm_score)}`;
  return node.state === "abandoned" ? `left ${colour}` : colour;
}

/** A row for who hears it. @param {Explorer} explorer @param {number} number */
function wordsOf(explorer, number) {
  const node = explorer.tree.nodes[number];
  const { visits } = explorer.countsOf(number);
  const parts = [
    number === 0 ? "Problem" : firstLine(node.text) || "empty step",
    node.answer !== null ? `answer ${node.answer}` : "",
    number === 0 ? "" : NODE_STATES[node.state].label,
    node.prm_score === null ? "" : `PRM ${score(node.prm_score)}`,
    `${visits} ${visits === 1 ? "visit" : "visits"}`,
    explorer.answerPath.has(number) ? "on the way to the answer" : "",
    explorer.matches?.lit[number] === 1 ? "matches the filter" : "",
  ];
  return parts.filter(Boolean).join(", ");
}

/** @param {{current: HTMLElement|null}} box @param {(screen: {top: number, height: number}) => void} setScreen */
function useScreen(box, setScreen) {
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = () => setScreen({ top: element.scrollTop, height: element.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    measure();
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", measure);
    };
  }, []);
}

/** What is read stays where it is when rows come in above it. @param {{current: HTMLElement|null}} box
 * @param {readonly number[]} rows */
function useSteady(box, rows) {
  const before = useRef(/** @type {readonly number[]} */ ([]));
  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const place = Math.floor(element.scrollTop / ROW_PX);
    const top = before.current[place];
    if (place > 0 && top !== undefined && rows[place] !== top) {
      const now = rows.indexOf(top);
      if (now >= 0) element.scrollTop += (now - place) * ROW_PX;
    }
    before.current = rows;
  });
}

/** Bring the selected row into sight when it is another one, or has come. @param {{current: HTMLElement|null}} box
 * @param {number} place @param {string} id */
function useRevealed(box, place, id) {
  const there = place >= 0;
  useEffect(() => {
    const element = box.current;
    if (!element || !there) return;
    const top = place * ROW_PX;
    if (top < element.scrollTop) element.scrollTop = top - ROW_PX;
    else if (top + ROW_PX > element.scrollTop + element.clientHeight) element.scrollTop = top + 2 * ROW_PX - element.clientHeight;
  }, [id, there]);
}

/**
 * @param {Explorer} explorer @param {readonly number[]} rows @param {number} page @param {(id: string) => void} onSelect
 */
function useKeys(explorer, rows, page, onSelect) {
  const typing = useRef({ text: "", at: -Infinity });
  return (/** @type {KeyboardEvent} */ event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { tree, closed, selected } = explorer;
    if (event.key === "Enter" || event.key === " ") {
      if (selected >= 0 && tree.children[selected].length > 0) explorer.fold(closed.has(selected) ? { open: [selected] } : { close: [selected] });
      event.preventDefault();
      return;
    }
    const move = moveOf(event.key, { tree, rows, closed, at: selected, page });
    if (move) {
      event.preventDefault();
      if (move.open || move.close) explorer.fold(move);
      if (move.select !== undefined) onSelect(tree.nodes[move.select].id);
      return;
    }
    if (event.key.length !== 1) return;
    const now = performance.now();
    const typed = now - typing.current.at < TYPING_MS ? typing.current.text + event.key : event.key;
    typing.current = { text: typed, at: now };
    const found = findTyped({ tree, rows, at: selected, typed });
    if (found >= 0) onSelect(tree.nodes[found].id);
  };
}

// @ts-check
/** Replays the journal: the tree as it grew, task by task, with the counts of that time. */

import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { number as count, plural, score } from "../lib/format.js";
import { Button } from "../lib/ui.js";
import { firstLine } from "./shown-tree.js";
import { useShown } from "./use-explorer.js";

/** @typedef {import("./explorer.js").Explorer} Explorer */
/** @typedef {import("./replay.js").Replay} Replay */

/** Tasks a second. */
const SPEEDS = [1, 2, 5, 10, 30, 100];

/** @param {{explorer: Explorer, onSelect: (id: string) => void, onClose: () => void}} props */
export function Scrubber({ explorer, onSelect, onClose }) {
  useShown(explorer);
  const [speed, setSpeed] = useState(5);
  const [playing, setPlaying] = usePlaying(explorer, speed);
  const { replay } = explorer;
  if (replay === null) return null;
  const seek = (/** @type {number} */ step) => {
    setPlaying(false);
    explorer.seek(step);
  };
  const play = () => {
    if (!playing && replay.step >= replay.length) explorer.seek(0);
    setPlaying(!playing);
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.target instanceof HTMLButtonElement || event.key !== " ") return;
    event.preventDefault();
    play();
  };
  return html`<section class="tree-scrubber" aria-label="Replay of the search" onKeyDown=${onKey}>
    <div class="row">
      <${Button} small kind="primary" class="tree-play" onClick=${play}>${playing ? "Pause replay" : "Play"}<//>
      <${Button} small aria-label="One task back" disabled=${replay.step === 0} onClick=${() => seek(replay.step - 1)}>‹<//>
      <${Button} small aria-label="One task on" disabled=${replay.step === replay.length} onClick=${() => seek(replay.step + 1)}>›<//>
      <input class="grow" type="range" min="0" max=${replay.length} step="1" value=${replay.step} aria-label="Moment of the search" aria-valuetext=${`After ${count(replay.step)} of ${plural(replay.length, "task")}`} onInput=${(/** @type {any} */ event) => seek(event.currentTarget.valueAsNumber)} />
      <span class="nowrap">${count(replay.step)} of ${plural(replay.length, "task")}</span>
      <label class="tree-speed">Speed <select value=${speed} onChange=${(/** @type {any} */ event) => setSpeed(Number(event.currentTarget.value))}>${SPEEDS.map((each) => html`<option value=${each}>${each} a second</option>`)}</select></label>
      <${Button} small kind="quiet" onClick=${onClose}>End replay<//>
    </div>
    <${Moment} explorer=${explorer} replay=${replay} onSelect=${onSelect} />
  </section>`;
}

/** What happened in the task that was told last. @param {{explorer: Explorer, replay: Replay, onSelect: (id: string) => void}} props */
function Moment({ explorer, replay, onSelect }) {
  const { task } = replay;
  if (task === null) return html`<p class="tree-moment muted">The start: the problem, and no task told yet.</p>`;
  const { nodes } = explorer.tree;
  const start = explorer.tree.numberOf(task.node);
  const end = task.end === null ? -1 : explorer.tree.numberOf(task.end);
  const result = task.end === null ? "" : task.value === null ? "It ended without an answer (−1)." : `It ended in ${end >= 0 ? (nodes[end].answer ?? "an answer") : "an answer"}, value ${score(task.value)}.`;
  return html`<p class="tree-moment">
    <strong>Task ${count(task.number)}</strong> began at ${start > 0 ? html`<button type="button" class="tree-link mono" onClick=${() => onSelect(task.node)}>${firstLine(nodes[start].text)}</button>` : "the problem"}
    ${" "}and made ${plural(replay.made.length, "node")}. ${result}
    ${task.why && html`<span class="muted"> ${task.why.words}</span>`}
  </p>`;
}

/** @param {Explorer} explorer @param {number} speed Tasks a second. @returns {[boolean, (on: boolean) => void]} */
function usePlaying(explorer, speed) {
  const [playing, setPlaying] = useState(false);
  const due = useRef(0);
  useEffect(() => {
    if (!playing) return;
    let [frame, last] = [0, performance.now()];
    const tick = (/** @type {number} */ now) => {
      const { replay } = explorer;
      if (replay === null || replay.step >= replay.length) {
        setPlaying(false);
        return;
      }
      due.current += (Math.max(0, now - last) / 1000) * speed;
      last = now;
      const steps = Math.floor(due.current);
      due.current -= steps;
      if (steps > 0) explorer.seek(replay.step + steps);
      frame = requestAnimationFrame(tick);
    };
    frame = requestAnimationFrame(tick);
    return () => cancelAnimationFrame(frame);
  }, [playing, speed, explorer]);
  return [playing, setPlaying];
}

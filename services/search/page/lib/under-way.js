// @ts-check
/** A round that is under way: its stages, how far the present one is, and about how long it takes. */
import { html, useEffect } from "../vendor/preact-htm.js";
import { duration, percent } from "./format.js";
import { ROUND_STATES, STAGES, isOver, standing } from "./rounds.js";
import { Badge } from "./ui.js";

/** @typedef {import("./rounds.js").Round} Round */

const POLL_MS = 2000;
const RARELY_MS = 20_000;

/** @param {{round: Round}} props */
export function RoundBadge({ round }) {
  const { label, tone } = ROUND_STATES[round.state] ?? { label: round.state, tone: "plain" };
  if (round.paused && !isOver(round)) return html`<${Badge} tone="warn" dot>Paused, ${label.toLowerCase()}<//>`;
  return html`<${Badge} tone=${tone} dot live=${!isOver(round)}>${label}<//>`;
}

/** The stages with their durations. @param {{round: Round}} props */
export function Stages({ round }) {
  const at = STAGES.indexOf(round.state === "failed" ? round.failed_in ?? "" : round.state);
  const over = round.state === "promoted" || round.state === "rejected";
  return html`<ol class="stages" aria-label="Stages">${STAGES.map((stage, place) => {
    const seconds = round.metrics.seconds[stage];
    const now = place === at;
    const failed = now && round.state === "failed";
    const left = stage === "training_prm" && round.config.prm === null && seconds === undefined;
    const text = left ? "none is trained" : failed ? "failed here" : now ? (round.paused ? "paused" : "under way") : over || place < at ? duration(seconds) : "to come";
    return html`<li key=${stage} class=${failed ? "failed" : now ? "now" : over || place < at ? "done" : "ahead"} aria-current=${now ? "step" : undefined}><strong>${ROUND_STATES[stage]?.label}</strong><span class="muted">${text}</span></li>`;
  })}</ol>`;
}

/** How far the present stage is. @param {{round: Round, before: Round|undefined}} props */
export function Progress({ round, before }) {
  const { count, note, share, left, rest } = standing(round, before);
  const { label = round.state, what = "" } = ROUND_STATES[round.state] ?? {};
  const words = [count, left, rest].filter(Boolean).join(" · ");
  return html`<div class="stack tight">
    <p>${what}</p>
    <div class=${`bar ${share === null && !round.paused ? "unknown" : ""}`} role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${share === null ? undefined : Math.round(share * 100)} aria-valuetext=${share === null ? "under way" : `${percent(share)}, ${words}`}><span style=${share === null ? {} : { width: `${share * 100}%` }}></span></div>
    <p class="row between"><span>${words || "Under way"}</span>${note && html`<span class="muted small wrap">${note}</span>`}</p>
  </div>`;
}

/** Call `reload` often while something is under way, and now and then otherwise; never while nobody looks. @param {boolean} busy @param {() => void} reload */
export function usePolling(busy, reload) {
  useEffect(() => {
    const timer = setInterval(() => document.hidden || reload(), busy ? POLL_MS : RARELY_MS);
    return () => clearInterval(timer);
  }, [busy, reload]);
}

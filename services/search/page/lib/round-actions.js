// @ts-check
/** What a person may do to a round, each with a question before it. */
import { html, useState } from "../vendor/preact-htm.js";
import { ConfirmDialog } from "./admin.js";
import { api } from "./api.js";
import { isOver } from "./rounds.js";
import { Button, toast } from "./ui.js";

/** @typedef {import("./rounds.js").Round} Round */
/** @typedef {"pause"|"resume"|"cancel"|"retry"} Action */

/** @type {Record<Action, {label: string, title: string, what: string, done: string, danger?: boolean}>} */
const ACTIONS = {
  pause: { label: "Pause", title: "Pause this round?", what: "Its stage stops within a second or so, and goes on from there when you resume it. Searches that are under way end by themselves. What serves does not change.", done: "The round pauses." },
  resume: { label: "Resume", title: "Resume this round?", what: "It goes on with the stage in which it was paused.", done: "The round goes on." },
  cancel: { label: "Cancel", title: "Cancel this round?", what: "It ends as failed. All that it gathered stays, and a retry goes on from there. What serves does not change.", done: "The round is being cancelled.", danger: true },
  retry: { label: "Retry", title: "Retry this round?", what: "It goes on with the stage that failed, with the configuration that it had. What it gathered before is kept; searches that failed are made again.", done: "The round is taken up again." },
};

/** The actions that its state allows. @param {Round} round @returns {Action[]} */
function allowed(round) {
  if (round.state === "failed") return ["retry"];
  if (isOver(round) || round.cancel_requested) return [];
  return [round.paused ? "resume" : "pause", "cancel"];
}

/** @param {{round: Round, onChanged: () => void}} props */
export function RoundActions({ round, onChanged }) {
  const [asked, ask] = useState(/** @type {Action|null} */ (null));
  const act = async () => {
    if (asked === null) return;
    await api.post(`/rounds/${encodeURIComponent(round.id)}/${asked}`);
    toast(ACTIONS[asked].done, "good");
    onChanged();
  };
  const chosen = asked === null ? null : ACTIONS[asked];
  return html`<div class="row">
    ${allowed(round).map((each) => html`<${Button} key=${each} kind=${ACTIONS[each].danger ? "danger" : "plain"} onClick=${() => ask(each)}>${ACTIONS[each].label}<//>`)}
    ${round.cancel_requested && !isOver(round) && html`<span class="muted">A cancel was asked for.</span>`}
    ${chosen && html`<${ConfirmDialog} title=${chosen.title} action=${chosen.label} danger=${chosen.danger} act=${act} onClose=${() => ask(null)}>
      <p>Round ${round.number} of <strong>${round.run}</strong>. ${chosen.what}</p>
    <//>`}
  </div>`;
}

// @ts-check
/** Problems whose reference answers lost against independent programs: why, what the programs are, and a person's last word. */
import { html, useState } from "../vendor/preact-htm.js";
import { AdminError, ConfirmDialog } from "../lib/admin.js";
import { api } from "../lib/api.js";
import { dateTime, plural, score } from "../lib/format.js";
import { SearchPrograms } from "../lib/search-programs.js";
import { Badge, Button, Details, Empty, Field, Spinner, toast, useLoaded, useStyle, useTitle } from "../lib/ui.js";

/** @typedef {{id: string, problem: string, reference: string, source: string, round: number, answer: string, programs: number, prm_score: number, created_at: string, overruled_at: string|null, overruled_because: string|null, searches: string[]}} Aside */

const MAX_REASON = 1000;

/** @param {{roundId: string, query: URLSearchParams}} props */
export function Quarantine({ roundId, query }) {
  useStyle("rounds");
  const whole = query.get("of") === "run";
  const round = useLoaded((signal) => api.get(`/rounds/${encodeURIComponent(roundId)}`, { signal }), [roundId]);
  const run = round.data?.run ?? null;
  const asked = run === null ? null : whole ? `/runs/${encodeURIComponent(run)}/quarantine` : `/rounds/${encodeURIComponent(roundId)}/quarantine`;
  const list = useLoaded((signal) => (asked === null ? Promise.resolve(null) : api.get(asked, { signal })), [asked]);
  const error = round.error ?? list.error;
  /** @type {Aside[]|null} */
  const problems = list.data?.problems ?? null;
  const title = run === null ? "Problems set aside" : whole ? `Problems that ${run} has set aside` : `Problems that round ${round.data.number} has set aside`;
  useTitle(title);
  const again = () => {
    round.reload();
    list.reload();
  };
  return html`<div class="view stack">
    <div class="head"><div class="stack tight"><p><a href=${`#/rounds/${roundId}`}>Round ${round.data?.number ?? ""}</a></p><h1>${title}</h1></div>
      <a href=${whole ? `#/rounds/${roundId}/quarantine` : `#/rounds/${roundId}/quarantine?of=run`}>${whole ? "Only those of this round" : "All of the run"}</a></div>
    <p class="muted">A reference answer loses where programs that were found independently, and respond to the problem's quantities, agree on another one and the PRM believes it. No training of the run reads these problems. Programs may share a misconception: read them, and overrule where the reference is right.</p>
    ${error !== null && html`<${AdminError} error=${error} retry=${again} />`}
    ${problems === null && error === null && html`<${Spinner} label="Loading problems" />`}
    ${problems !== null && problems.length === 0 && html`<${Empty} title="Nothing was set aside"><p>Every reference answer stood. Problems are looked at again in each round, once a trained PRM serves.</p><//>`}
    ${problems !== null && run !== null && problems.map((each) => html`<${SetAside} key=${each.id} aside=${each} run=${run} onChanged=${list.reload} />`)}
  </div>`;
}

/** @param {{aside: Aside, run: string, onChanged: () => void}} props */
function SetAside({ aside, run, onChanged }) {
  const [asked, setAsked] = useState(false);
  const [looked, setLooked] = useState(false);
  const over = aside.overruled_at !== null;
  return html`<article class="panel set-aside" aria-label=${`Problem ${aside.id}`}>
    <div class="row between"><span class="row"><${Badge} tone=${over ? "good" : "warn"}>${over ? "Overruled: trained on again" : "Set aside"}<//><span class="muted small">round ${aside.round} · ${aside.source} · ${dateTime(aside.created_at)}</span></span>
      ${!over && html`<${Button} onClick=${() => setAsked(true)}>Trust the reference answer<//>`}</div>
    <p class="wrap">${aside.problem}</p>
    <div class="against">
      <div><span class="muted small">Reference answer</span><output>${aside.reference}</output></div>
      <div><span class="muted small">What the programs answer</span><output>${aside.answer}</output><span class="small muted">${plural(aside.programs, "independent find")} of one behaviour, PRM ${score(aside.prm_score)}</span></div>
    </div>
    ${over && html`<p class="small muted wrap">Overruled ${dateTime(aside.overruled_at)}${aside.overruled_because ? `: ${aside.overruled_because}` : ""}</p>`}
    ${aside.searches.length > 0 ? html`<${Details} summary="Look at the programs" onToggle=${(/** @type {boolean} */ open) => setLooked((before) => before || open)}>${looked && html`<${SearchPrograms} searches=${aside.searches} />`}<//>` : html`<p class="small muted">Its searches were deleted.</p>`}
    ${asked && html`<${OverruleDialog} aside=${aside} run=${run} onChanged=${onChanged} onClose=${() => setAsked(false)} />`}
  </article>`;
}

/** @param {{aside: Aside, run: string, onChanged: () => void, onClose: () => void}} props */
function OverruleDialog({ aside, run, onChanged, onClose }) {
  const [reason, setReason] = useState("");
  const act = async () => {
    await api.post(`/runs/${encodeURIComponent(run)}/quarantine/${encodeURIComponent(aside.id)}/overrule`, { reason: reason.trim() });
    toast("The run trains on this problem again.", "good");
    onChanged();
  };
  const typed = (/** @type {any} */ event) => setReason(event.currentTarget.value);
  return html`<${ConfirmDialog} title="Trust the reference answer?" action="Trust it" ready=${reason.trim() !== ""} act=${act} onClose=${onClose}>
    <p class="wrap">The run <strong>${run}</strong> trains on this problem again from its next training on, with the answer <strong>${aside.reference}</strong>, and never sets it aside again. This cannot be taken back.</p>
    <${Field} label="Why the reference answer is right" hint="Kept with the problem; the audit says who overruled.">${(/** @type {any} */ control) => html`<textarea ...${control} maxlength=${MAX_REASON} value=${reason} onInput=${typed}></textarea>`}<//>
  <//>`;
}

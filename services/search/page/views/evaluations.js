// @ts-check
/** Two evaluations and the paired test between them: of rounds, or of the result files of `ratchet eval`. */
import { html, useState } from "../vendor/preact-htm.js";
import { AdminError } from "../lib/admin.js";
import { api } from "../lib/api.js";
import { Comparison } from "../lib/comparison.js";
import { FileError, readEvaluation } from "../lib/eval-files.js";
import { number } from "../lib/format.js";
import { navigate } from "../lib/router.js";
import { PAIR_NAMES, accuracyOf, measureName } from "../lib/rounds.js";
import { Button, ErrorBox, Field, Spinner, useLoaded, useStyle, useTitle } from "../lib/ui.js";

/** @typedef {import("../lib/rounds.js").Round} Round */
/** @typedef {import("../lib/eval-files.js").EvalFiles} EvalFiles */
/** @typedef {{key: string, group: string, label: string}} Offer */
/** @typedef {"a"|"b"} SideName */

const TEST_MS = 60_000;

/** @param {{query: URLSearchParams}} props */
export function Evaluations({ query }) {
  useStyle("rounds");
  useTitle("Evaluations");
  const rounds = useLoaded((signal) => api.get("/rounds?limit=1000", { signal }), []);
  const [files, setFiles] = useState(/** @type {Record<SideName, EvalFiles|null>} */ ({ a: null, b: null }));
  const offers = offersOf(rounds.data?.rounds ?? []);
  const [a, b] = /** @type {const} */ (["a", "b"]).map((side) => (files[side] ? { file: { name: files[side].name, tries: files[side].tries, problems: files[side].problems } } : ofRound(query.get(side))));
  const ready = a && b;
  const found = useLoaded((signal) => (ready ? api.post("/evaluations/compare", { first: a, second: b }, { signal, timeout: TEST_MS }) : Promise.resolve(null)), [query.get("a"), query.get("b"), files.a, files.b]);
  const choose = (/** @type {SideName} */ side, /** @type {string} */ key) => {
    setFiles({ ...files, [side]: null });
    const next = new URLSearchParams(query);
    if (key) next.set(side, key);
    else next.delete(side);
    navigate(`/evaluations?${next}`, { replace: true });
  };
  const take = (/** @type {SideName} */ side, /** @type {EvalFiles} */ read) => setFiles({ ...files, [side]: read });
  return html`<div class="view stack">
    <div class="head"><h1>Evaluations</h1></div>
    <p class="muted">Two evaluations of the same problems, compared problem by problem. Of result files that you choose, only the ids of the problems and whether they were solved are sent to the service, for the test; nothing is kept.</p>
    ${rounds.error !== null && html`<${AdminError} error=${rounds.error} retry=${rounds.reload} />`}
    ${rounds.data === null && rounds.error === null && html`<${Spinner} label="Loading evaluations" />`}
    ${rounds.data !== null && html`<div class="sides">
      ${/** @type {const} */ (["a", "b"]).map((side) => html`<${Side} key=${side} side=${side} offers=${offers} chosen=${query.get(side) ?? ""} file=${files[side]} onChoose=${choose} onFiles=${take} />`)}
    </div>`}
    ${ready && found.error !== null && html`<${ErrorBox} error=${found.error} retry=${found.reload} title="These two cannot be compared" />`}
    ${ready && found.loading && html`<${Spinner} label="Testing" />`}
    ${!ready && rounds.data !== null && html`<p class="muted">Choose both, and the test is shown here.</p>`}
    ${ready && found.data !== null && found.error === null && html`<${Comparison} found=${found.data} files=${files} />`}
  </div>`;
}

/** @param {{side: SideName, offers: Offer[], chosen: string, file: EvalFiles|null, onChoose: (side: SideName, key: string) => void, onFiles: (side: SideName, read: EvalFiles) => void}} props */
function Side({ side, offers, chosen, file, onChoose, onFiles }) {
  const [failed, setFailed] = useState(/** @type {string|null} */ (null));
  const groups = [...new Set(offers.map((each) => each.group))];
  const selected = (/** @type {any} */ event) => onChoose(side, event.currentTarget.value);
  const picked = async (/** @type {any} */ event) => {
    const input = event.currentTarget;
    const list = [...(input.files ?? [])];
    if (list.length === 0) return;
    try {
      onFiles(side, await readEvaluation(list));
      setFailed(null);
    } catch (error) {
      setFailed(error instanceof FileError ? error.message : `The browser cannot read this file: ${error instanceof Error ? error.message : error}`);
    } finally {
      // The same file can be chosen again once it was mended.
      input.value = "";
    }
  };
  return html`<section class="panel stack tight" aria-label=${side === "a" ? "First" : "Second"}>
    <h2>${side === "a" ? "First" : "Second, measured against the first"}</h2>
    <${Field} label="Measured in a round" hint=${offers.length === 0 ? "No round has measured anything yet." : null}>${(/** @type {any} */ control) => html`<select ...${control} disabled=${offers.length === 0} value=${file ? "" : chosen} onChange=${selected}>
      <option value="">choose one</option>
      ${groups.map((group) => html`<optgroup key=${group} label=${group}>${offers.filter((each) => each.group === group).map((each) => html`<option key=${each.key} value=${each.key} selected=${!file && each.key === chosen}>${each.label}</option>`)}</optgroup>`)}
    </select>`}<//>
    <${Field} label="Or result files of ratchet eval" hint="The .jsonl files of one strategy, one for each seed." error=${failed}>${(/** @type {any} */ control) => html`<input ...${control} type="file" accept=".jsonl,.json,application/jsonl" multiple onChange=${picked} />`}<//>
    ${file !== null && html`<p class="row"><span class="grow wrap">${file.name}: ${number(file.problems.length)} problems${file.tries > 1 ? `, ${file.tries} seeds` : ""}</span><${Button} small onClick=${() => onChoose(side, "")}>Remove<//></p>`}
  </section>`;
}

/** Everything that rounds have measured. @param {Round[]} rounds @returns {Offer[]} */
function offersOf(rounds) {
  return rounds.flatMap((round) => {
    const evaluation = round.metrics.evaluation;
    if (!evaluation) return [];
    return ["candidate", "incumbent", "reference"].flatMap((who) =>
      Object.entries(evaluation[who]?.measured ?? {}).map(([name, measured]) => ({
        key: `${round.id}.${who}.${name}`,
        group: `${round.run}, round ${round.number}: ${(PAIR_NAMES[who] ?? who).toLowerCase()}`,
        label: `Round ${round.number}, ${(PAIR_NAMES[who] ?? who).toLowerCase()}: ${measureName(name)}, ${accuracyOf(measured)}`,
      })),
    );
  });
}

/** The evaluation that an address names; null: none. @param {string|null} key */
function ofRound(key) {
  const [round, pair, ...measured] = (key ?? "").split(".");
  return round && pair && measured.length > 0 ? { round: { round, pair, measured: measured.join(".") } } : null;
}

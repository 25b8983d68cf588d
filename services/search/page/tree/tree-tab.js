// @ts-check
/** The tree of a search, live: outline, map and node side by side; below a phone's width one at a time. */

import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { ApiError } from "../lib/api.js";
import { number as count } from "../lib/format.js";
import { navigate } from "../lib/router.js";
import { Button, Spinner, toast, useStyle, wordsOf } from "../lib/ui.js";
import { Canvas } from "./canvas.js";
import { FilterBar } from "./filter-bar.js";
import { NodePanel } from "./node-panel.js";
import { Outline } from "./outline.js";
import { Scrubber } from "./scrubber.js";
import { journalOf } from "./source.js";
import { useExplorer, useShown } from "./use-explorer.js";

/** @typedef {import("../lib/search-model.js").SearchModel} SearchModel */
/** @typedef {import("./explorer.js").Explorer} Explorer */
/** @typedef {import("./journal.js").Journal} Journal */

/** The address names the node that was looked at for so long, ms. */
const ADDRESS_MS = 300;
/** Of a running search the journal is read again after so long, ms. */
const JOURNAL_MS = 4000;
const PANES = [
  { name: "outline", label: "Outline" },
  { name: "map", label: "Map" },
  { name: "node", label: "Node" },
];

/** @param {{model: SearchModel, searchId: string, nodeId: string|null}} props */
export function TreeTab(props) {
  const styled = useStyle("tree");
  if (!styled) return html`<${Spinner} label="Loading the tree" />`;
  return html`<${Tree} ...${props} />`;
}

/**
 * @param {{model: SearchModel, searchId: string, nodeId: string|null, journal?: Journal, offline?: boolean}} props
 *   journal: all of it, for a page that asks nobody (offline).
 */
export function Tree({ model, searchId, nodeId, journal, offline = false }) {
  const explorer = useExplorer(model, journal);
  // A link to a node is a link to what it says.
  const [pane, setPane] = useState(nodeId ? "node" : "map");
  const select = useSelection(explorer, searchId, nodeId, offline);
  const reading = useJournal(explorer, searchId, offline);
  return html`<section class="tree" data-pane=${pane} aria-label="Tree of the search">
    <div class="tree-bar">
      <${FilterBar} explorer=${explorer} />
      <${Controls} explorer=${explorer} searchId=${searchId} offline=${offline} reading=${reading} />
    </div>
    <div class="tree-panes" role="group" aria-label="Parts of the tree">${PANES.map((each) => html`<button type="button" key=${each.name} aria-pressed=${String(pane === each.name)} onClick=${() => setPane(each.name)}>${each.label}</button>`)}</div>
    <div class="tree-body">
      <div class="tree-pane outline"><${Outline} explorer=${explorer} onSelect=${select} /></div>
      <div class="tree-pane map"><${Canvas} explorer=${explorer} onSelect=${select} /><${Nothing} explorer=${explorer} /></div>
      <aside class="tree-pane node" aria-label="Selected node" tabindex="0"><${NodePanel} explorer=${explorer} searchId=${searchId} offline=${offline} reading=${reading} onSelect=${select} /></aside>
    </div>
    <${Scrubber} explorer=${explorer} onSelect=${select} onClose=${() => explorer.setReplay(false)} />
  </section>`;
}

/** Pause, replay and the file. @param {{explorer: Explorer, searchId: string, offline: boolean, reading: Reading}} props */
function Controls({ explorer, searchId, offline, reading }) {
  useShown(explorer);
  const [saving, setSaving] = useState(false);
  const { model, paused, waiting } = explorer;
  const replayable = explorer.journal.tasks.length > 0;
  const save = async () => {
    setSaving(true);
    try {
      const { saveOffline } = await import("./offline.js");
      await saveOffline(model, searchId);
    } catch (error) {
      const { head, detail } = wordsOf(error);
      toast(`The file could not be made. ${detail ?? head}`, "bad");
    } finally {
      setSaving(false);
    }
  };
  return html`<div class="row tree-controls">
    ${explorer.replay === null && (!model.over || paused) && html`<${Button} small aria-pressed=${String(paused)} title="Events go on arriving; the tree shows them when it goes on" onClick=${() => explorer.pause(!paused)}>${paused ? "Go on" : "Pause"}<//>`}
    ${explorer.isHeld && waiting > 0 && html`<span class="badge accent" role="status">${count(waiting)} waiting</span>`}
    ${explorer.replay === null && html`<${Button} small disabled=${!replayable} title=${replayable ? "See the search as it ran" : reading.loading ? "The journal is being read" : "This search has no journal"} onClick=${() => explorer.setReplay(true)}>Replay<//>`}
    ${!offline && html`<${Button} small busy=${saving} title="One HTML file that shows this tree without a server" onClick=${save}>Save as file<//>`}
  </div>`;
}

/** What stands where there is no tree. @param {{explorer: Explorer}} props */
function Nothing({ explorer }) {
  useShown(explorer);
  const { model, tree } = explorer;
  if (tree.size > 1) return null;
  const coming = model.over && (model.result?.usage.nodes ?? 0) > 0;
  if (coming) return html`<div class="tree-nothing"><${Spinner} label="Loading the tree" /></div>`;
  return html`<div class="tree-nothing"><p>${model.over ? "This search made no step." : model.state === "queued" ? "The search waits for a worker." : "The first step is on its way."}</p></div>`;
}

/**
 * Selects by the address and writes the address; what selects.
 * @param {Explorer} explorer @param {string} searchId @param {string|null} nodeId @param {boolean} offline
 * @returns {(id: string) => void}
 */
function useSelection(explorer, searchId, nodeId, offline) {
  const timer = useRef(/** @type {ReturnType<typeof setTimeout>|undefined} */ (undefined));
  useEffect(() => {
    if (nodeId !== null) explorer.select(nodeId);
  }, [explorer, nodeId]);
  useEffect(() => () => clearTimeout(timer.current), [searchId]);
  return (id) => {
    explorer.select(id);
    if (offline) return;
    clearTimeout(timer.current);
    const path = `/search/${encodeURIComponent(searchId)}`;
    timer.current = setTimeout(() => navigate(id === "root" ? `${path}/tree` : `${path}/node/${encodeURIComponent(id)}`, { replace: true }), ADDRESS_MS);
  };
}

/** @typedef {import("./why.js").Reading} Reading */

/** Reads the journal, and while the search runs what it has come to. @param {Explorer} explorer @param {string} searchId
 * @param {boolean} offline @returns {Reading} */
function useJournal(explorer, searchId, offline) {
  const [state, setState] = useState({ loading: !offline, error: /** @type {unknown} */ (null) });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (offline) return;
    let gone = false;
    /** @type {ReturnType<typeof setTimeout>|undefined} */
    let timer;
    const readPage = journalOf(searchId);
    const read = async () => {
      // Asked before: what is told while it is read is for the next time.
      const over = explorer.model.over;
      try {
        const known = explorer.journal.tasks.length;
        await explorer.journal.read(readPage);
        if (gone) return;
        setState({ loading: false, error: null });
        if (explorer.journal.tasks.length > known) explorer.journalRead();
      } catch (error) {
        // A search of an older version has none.
        if (!gone) setState({ loading: false, error: error instanceof ApiError && error.status === 404 ? null : error });
      }
      if (!gone && !over) timer = setTimeout(read, JOURNAL_MS);
    };
    read();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [explorer, searchId, offline, turn]);
  return { ...state, reload: () => setTurn(turn + 1) };
}

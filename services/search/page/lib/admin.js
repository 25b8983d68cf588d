// @ts-check
/** What rounds and models say to whom they are closed, and the dialog before something is changed. */
import { html, useState } from "../vendor/preact-htm.js";
import { ApiError } from "./api.js";
import { Button, Code, Dialog, ErrorBox } from "./ui.js";

/** An error; one of a missing or smaller key in words that say how to get the right one. @param {{error: unknown, retry?: () => void}} props */
export function AdminError({ error, retry }) {
  if (!(error instanceof ApiError) || (error.status !== 401 && error.status !== 403)) return html`<${ErrorBox} error=${error} retry=${retry} />`;
  const ask = () => document.dispatchEvent(new Event("ratchet:key"));
  return html`<div class="box warn admin-needed" role="alert">
    <strong>Rounds and models are for keys of the scope admin</strong>
    <p>${error.status === 401 ? "This page has no key that is in force." : "The key of this page may search, and may not see or change what serves."} Use the operator's key, which <code>ratchet up</code> made in the file <code>secrets/admin_key</code> of its data folder (Compose: in the volume <code>secrets</code>), or have one made:</p>
    <${Code} text="ratchet keys create NAME --scope admin" label="command" />
    <${Button} kind="primary" onClick=${ask}>Enter a key<//>
  </div>`;
}

/**
 * Says what is about to happen, and does it on a second press. An error stays in the dialog.
 * @param {{title: string, action: string, danger?: boolean, act: () => Promise<void>, onClose: () => void, children?: any, ready?: boolean}} props
 */
export function ConfirmDialog({ title, action, danger = false, act, onClose, children, ready = true }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(/** @type {unknown} */ (null));
  const go = async () => {
    setBusy(true);
    setError(null);
    try {
      await act();
      onClose();
    } catch (failure) {
      setError(failure);
      setBusy(false);
    }
  };
  const actions = html`<${Button} onClick=${onClose}>Leave it as it is<//><${Button} kind=${danger ? "danger" : "primary"} busy=${busy} disabled=${!ready} onClick=${go}>${action}<//>`;
  return html`<${Dialog} title=${title} onClose=${onClose} actions=${actions}>${children}${error !== null && html`<${AdminError} error=${error} />`}<//>`;
}

// @ts-check
/** Asks for the API key, tries it, and keeps it. Opened from the header, and when the API asks for one. */
import { html, useState } from "../vendor/preact-htm.js";
import { ApiError, api } from "./api.js";
import { currentKey, keepKey } from "./key.js";
import { Button, Dialog, Field, toast, wordsOf } from "./ui.js";

/** @param {{onClose: () => void}} props */
export function KeyDialog({ onClose }) {
  const [text, setText] = useState("");
  const [error, setError] = useState(/** @type {string|null} */ (null));
  const [busy, setBusy] = useState(false);
  const known = currentKey() !== null;
  const keep = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const key = text.trim();
    if (!key) return setError("Enter a key.");
    if (!/^[\x21-\x7e]+$/.test(key)) return setError("A key has no blanks and no letters with accents.");
    setBusy(true);
    try {
      await api.get("searches?limit=1", { headers: { Authorization: `Bearer ${key}` } });
      keepKey(key);
      toast("The key is kept in this browser.", "good");
      onClose();
    } catch (failure) {
      const wrong = failure instanceof ApiError && failure.status === 401;
      const { head, detail } = wordsOf(failure);
      setError(wrong ? "This key is not in force here." : (detail ?? head));
    } finally {
      setBusy(false);
    }
  };
  const forget = () => {
    keepKey(null);
    toast("The key is forgotten.");
    onClose();
  };
  return html`<${Dialog} title="API key" onClose=${onClose}>
    <form class="stack" onSubmit=${keep}>
      <p class="muted">The page asks the API in your name. The key is kept in this browser only, and sent to this address only.</p>
      <${Field} label="Key" error=${error} hint=${html`<code>ratchet up --open</code> brings it along. <code>ratchet keys create NAME</code> makes one.`}>
        ${(/** @type {Record<string, any>} */ control) => html`<input ...${control} type="password" autocomplete="off" spellcheck=${false} autofocus value=${text} onInput=${(/** @type {any} */ e) => setText(e.target.value)} />`}
      <//>
      <div class="row">
        <${Button} kind="primary" type="submit" busy=${busy}>Use this key<//>
        ${known && html`<${Button} kind="danger" onClick=${forget}>Forget the key kept here<//>`}
      </div>
    </form>
  <//>`;
}

// @ts-check
/** Explorers in components: one for a model while its tab is open, and drawing anew when it changes. */

import { useEffect, useMemo, useState } from "../vendor/preact-htm.js";
import { Explorer } from "./explorer.js";

/** @typedef {import("../lib/search-model.js").SearchModel} SearchModel */
/** @typedef {import("./journal.js").Journal} Journal */

/** While nodes arrive, components are drawn no more often, ms. */
const PAUSE_MS = 120;

/** @param {SearchModel} model @param {Journal} [journal] */
export function useExplorer(model, journal) {
  const explorer = useMemo(() => new Explorer(model, journal), [model, journal]);
  useEffect(() => {
    let frame = 0;
    explorer.onStale = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        explorer.flush();
      });
    };
    explorer.onStale();
    return () => {
      cancelAnimationFrame(frame);
      explorer.close();
    };
  }, [explorer]);
  return explorer;
}

/** Draw the component again when the explorer has changed. @param {Explorer} explorer */
export function useShown(explorer) {
  const [, redraw] = useState(explorer.version);
  useEffect(() => {
    /** @type {ReturnType<typeof setTimeout>|null} */
    let timer = null;
    let last = -Infinity;
    const end = explorer.subscribe(() => {
      timer ??= setTimeout(() => {
        timer = null;
        last = performance.now();
        redraw(explorer.version);
      }, Math.max(0, last + PAUSE_MS - performance.now()));
    });
    redraw(explorer.version);
    return () => {
      end();
      if (timer !== null) clearTimeout(timer);
    };
  }, [explorer]);
}

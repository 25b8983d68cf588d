// @ts-check
/**
 * Sets `data-theme` (light or dark) before the first paint, and whenever it changes: what was chosen here, otherwise what
 * the system says. Choosing is to store `ratchet.theme` and to dispatch the event `ratchet:theme` on the document.
 */
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    let chosen = null;
    try {
      chosen = localStorage.getItem("ratchet.theme");
    } catch {
      // A browser that keeps nothing has no choice to remember.
    }
    const theme = chosen === "light" || chosen === "dark" ? chosen : dark.matches ? "dark" : "light";
    document.documentElement.dataset.theme = theme;
  };
  apply();
  dark.addEventListener("change", apply);
  addEventListener("storage", apply);
  document.addEventListener("ratchet:theme", apply);
})();

// @ts-check
/** The modules of an offline file, in an order in which each finds those that it imports. Pure, but for the reading. */

/** The module that starts the file. */
export const ENTRY = "tree/offline-start.js";

const IMPORT = /\b(?:from|import)\s*(["'])(\.{1,2}\/[^"']+)\1/g;
const ADDRESS = /new URL\((["'])(\.{1,2}\/[^"']+\.js)\1,\s*import\.meta\.url\)/g;
/** What stands for a module's own address: nothing is asked for there. */
const NOWHERE = "https://offline.invalid/";

/**
 * Every module that the entry needs, those it imports first. `@@path@@` stands in the texts where an address goes.
 * What is imported by a call, `import(…)`, is not among them.
 * @param {(path: string) => Promise<string>} read
 * @returns {Promise<{path: string, text: string}[]>}
 */
export async function linkModules(read) {
  /** @type {{path: string, text: string}[]} */
  const linked = [];
  /** @type {Set<string>} */
  const begun = new Set();
  const link = async (/** @type {string} */ path) => {
    if (begun.has(path)) return;
    begun.add(path);
    const { text, needs } = rewrite(path, await read(path));
    for (const need of needs) await link(need);
    linked.push({ path, text });
  };
  await link(ENTRY);
  return linked;
}

/**
 * A module's text with marks for what it imports, and the paths of that.
 * @param {string} path @param {string} text
 * @returns {{text: string, needs: string[]}}
 */
export function rewrite(path, text) {
  /** @type {Set<string>} */
  const needs = new Set();
  const mark = (/** @type {string} */ specifier) => {
    const need = resolve(path, specifier);
    needs.add(need);
    return `"@@${need}@@"`;
  };
  const code = withoutComments(text)
    .replace(ADDRESS, (_, _quote, specifier) => mark(specifier))
    .replace(IMPORT, (whole, _quote, specifier) => whole.replace(/(["']).*$/, mark(specifier)))
    .replaceAll("import.meta.url", JSON.stringify(NOWHERE + path));
  return { text: code, needs: [...needs] };
}

/** Comments on lines of their own name imports, too: types. @param {string} text */
function withoutComments(text) {
  return text.replace(/^[ \t]*\/\*\*[^]*?\*\/[ \t]*$/gm, "").replace(/^[ \t]*\/\/.*$/gm, "");
}

/** @param {string} path @param {string} specifier */
function resolve(path, specifier) {
  return new URL(specifier, NOWHERE + path).href.slice(NOWHERE.length);
}

/**
 * JSON that can stand in a script element: nothing in it ends the element, or a line of JavaScript.
 * @param {unknown} value
 */
export function escapeJson(value) {
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

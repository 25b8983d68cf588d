// @ts-check
/**
 * The modules of the page as one script, for a file that has no server. Pure, but for the reading.
 *
 * Each module becomes a function that returns what it exports, after those that it imports. A page from a file may start no worker
 * that is a module, so its workers are such scripts, too.
 *
 * Limits: it knows the forms that this page's modules are written in, one import or export a line, and no circles.
 */

const IMPORT = /^import\s*\{([^}]*)\}\s*from\s*["'](\.{1,2}\/[^"']+)["'];?[ \t]*$/gm;
const WORKER = /new Worker\(new URL\(["'](\.{1,2}\/[^"']+\.js)["'],\s*import\.meta\.url\),\s*\{ type: "module" \}\)/g;
const DECLARED = /^export\s+((?:async\s+)?function\*?|class|const)\s+([\w$]+)/gm;
const LISTED = /\bexport\s*\{([^}]*)\};?/g;
/** What stands for a module's own address: nothing is asked for there. */
const NOWHERE = "https://offline.invalid/";

/**
 * A script that does what the module does. What is imported by a call, `import(…)`, is not in it.
 * @param {string} entry Path of the module in the page's folder.
 * @param {(path: string) => Promise<string>} read
 * @returns {Promise<string>}
 */
export async function bundle(entry, read) {
  /** @type {string[]} */
  const parts = [];
  /** @type {Map<string, boolean>} Whether it is in the script already. */
  const known = new Map();
  const add = async (/** @type {string} */ path) => {
    if (known.get(path)) return;
    if (known.has(path)) throw new Error(`${path} imports itself, by way of others.`);
    known.set(path, false);
    const { text, needs, workers } = rewrite(path, await read(path));
    for (const need of needs) await add(need);
    for (const worker of workers) parts.push(`modules[${JSON.stringify(worker)}] = ${asBlob(await bundle(worker, read))};`);
    parts.push(text);
    known.set(path, true);
  };
  await add(entry);
  return `"use strict";\nconst modules = {};\n${parts.join("\n")}\n`;
}

/**
 * A module as a part of a script, and the paths of what it imports, and of the workers that it starts.
 * @param {string} path @param {string} source
 */
function rewrite(path, source) {
  /** @type {Set<string>} */
  const needs = new Set();
  /** @type {Set<string>} */
  const workers = new Set();
  /** @type {string[]} */
  const exported = [];
  const from = (/** @type {Set<string>} */ set, /** @type {string} */ specifier) => {
    const found = new URL(specifier, NOWHERE + path).href.slice(NOWHERE.length);
    set.add(found);
    return `modules[${JSON.stringify(found)}]`;
  };
  const body = withoutComments(source)
    .replace(IMPORT, (_, names, specifier) => `const {${names.replace(/\s+as\s+/g, ": ")}} = ${from(needs, specifier)};`)
    .replace(WORKER, (_, specifier) => `new Worker(${from(workers, specifier)})`)
    .replaceAll("import.meta.url", JSON.stringify(NOWHERE + path))
    .replace(DECLARED, (_, kind, name) => {
      exported.push(name);
      return `${kind} ${name}`;
    })
    .replace(LISTED, (_, names) => {
      for (const each of names.split(",")) exported.push(each.trim().replace(/^(\S+)\s+as\s+(\S+)$/, "$2: $1"));
      return "";
    });
  const text = `modules[${JSON.stringify(path)}] = (() => {\n${body}\nreturn { ${exported.join(", ")} };\n})();`;
  return { text, needs: [...needs], workers: [...workers] };
}

/** A script as it can stand in a script element: nothing in it ends the element. @param {string} script */
export function escapeScript(script) {
  return script.replace(/<(?=\/script|!--)/gi, "\\x3c");
}

/**
 * JSON that can stand in a script element: nothing in it ends the element, or a line of JavaScript.
 * @param {unknown} value
 */
export function escapeJson(value) {
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** An expression that gives the address of a script. @param {string} script */
function asBlob(script) {
  return `URL.createObjectURL(new Blob([${escapeJson(script)}], { type: "text/javascript" }))`;
}

/** Comments that have lines to themselves: types in them look like imports. @param {string} text */
function withoutComments(text) {
  return text.replace(/^[ \t]*\/\*\*[^]*?\*\/[ \t]*$/gm, "").replace(/^[ \t]*\/\/.*$/gm, "");
}

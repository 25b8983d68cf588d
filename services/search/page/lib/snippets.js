// @ts-check
/** What the page asks for, as a command of curl and as Python: to be copied into a terminal or a program. */
import { BASE } from "./api.js";

/** @typedef {Record<string, any>} Request A body of `POST /search`. */

/** Where the service is, without the slash at its end. */
export function serviceUrl() {
  return BASE.href.replace(/\/$/, "");
}

/** The command that begins this search, and waits for its end. The key stays in an environment variable. @param {Request} request */
export function curlOf(request) {
  const body = JSON.stringify({ ...request, wait: 300 }, null, 2);
  return [
    `curl ${quoted(`${serviceUrl()}/search`)} \\`,
    `  -H "Authorization: Bearer $RATCHET_KEY" \\`,
    `  -H 'Content-Type: application/json' \\`,
    `  -d ${quoted(body)}`,
  ].join("\n");
}

/** The program that does the same. @param {Request} request */
export function pythonOf({ problem, ...options }) {
  const given = Object.entries(options).map(([name, value]) => `        ${name}=${literal(value)},`);
  return [
    "import ratchet",
    "",
    `with ratchet.Client(${literal(serviceUrl())}) as client:  # its key: $RATCHET_KEY`,
    "    result = client.solve(",
    `        ${literal(problem)},`,
    ...given,
    "    )",
    "    print(result.answer, result.verification)",
  ].join("\n");
}

/** The commands that fetch a search and check its proof. @param {string} id */
export function curlOfSearch(id) {
  const url = `${serviceUrl()}/search/${id}`;
  return [
    `curl ${quoted(url)} -H "Authorization: Bearer $RATCHET_KEY"`,
    `curl ${quoted(`${url}/proof`)} -H "Authorization: Bearer $RATCHET_KEY" -o proof.json`,
    "ratchet verify proof.json",
  ].join("\n");
}

/** A word of a POSIX shell that means exactly this text. @param {string} text */
export function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A JSON value as Python writes it. @param {unknown} value @returns {string} */
export function literal(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${literal(each)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

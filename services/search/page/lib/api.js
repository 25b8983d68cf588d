// @ts-check
/** The API over fetch: JSON in, JSON out, a time-out for each call, and every failure an ApiError that a person can read. */
import { currentKey, keyRefused } from "./key.js";

/** Where the API is: what serves the page serves it, under whatever prefix. */
export const BASE = new URL("../../", import.meta.url);
const TIMEOUT_MS = 30_000;

/** @typedef {{field: string, message: string}} FieldError */

/** A call that did not succeed. `status` 0: there was no answer. */
export class ApiError extends Error {
  /**
   * @param {{status: number, title: string, detail?: string|null, errors?: FieldError[], retryAfter?: number|null}} problem
   */
  constructor({ status, title, detail = null, errors = [], retryAfter = null }) {
    super(detail || title);
    this.name = "ApiError";
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.errors = errors;
    /** Seconds. @type {number|null} */
    this.retryAfter = retryAfter;
  }
}

/** @typedef {{signal?: AbortSignal, timeout?: number, headers?: Record<string, string>}} Options timeout: ms */

export const api = {
  /** @param {string} path @param {Options} [options] @returns {Promise<any>} */
  get: (path, options) => json("GET", path, undefined, options),
  /** @param {string} path @param {unknown} [body] @param {Options} [options] @returns {Promise<any>} */
  post: (path, body, options) => json("POST", path, body, options),
  /** @param {string} path @param {unknown} [body] @param {Options} [options] @returns {Promise<any>} */
  put: (path, body, options) => json("PUT", path, body, options),
  /** @param {string} path @param {unknown} [body] @param {Options} [options] @returns {Promise<any>} */
  del: (path, body, options) => json("DELETE", path, body, options),
  /** The body as a file would hold it. @param {string} path @param {Options} [options] */
  blob: async (path, options = {}) => {
    const { response, done } = await ask("GET", path, undefined, options);
    try {
      return await response.blob();
    } catch (error) {
      throw unreachable(error, options.signal);
    } finally {
      done();
    }
  },
};

/** Headers of every call: the key, if there is one. @returns {Record<string, string>} */
export function authorization() {
  const key = currentKey();
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/** @param {string} method @param {string} path @param {unknown} body @param {Options} [options] */
async function json(method, path, body, options = {}) {
  const { response, done } = await ask(method, path, body, options);
  try {
    const text = await response.text();
    return text ? JSON.parse(text) : null;
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new ApiError({ status: response.status, title: "The answer is not JSON", detail: "Something between this page and the service answers in its place." });
    }
    throw unreachable(error, options.signal);
  } finally {
    done();
  }
}

/**
 * The response, if it is a success; its body still has to be read before `done`.
 * @param {string} method @param {string} path @param {unknown} body @param {Options} options
 */
async function ask(method, path, body, { signal, timeout = TIMEOUT_MS, headers = {} }) {
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(new DOMException("timed out", "TimeoutError")), timeout);
  const leave = () => limit.abort(signal?.reason);
  signal?.addEventListener("abort", leave);
  const done = () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", leave);
  };
  try {
    if (signal?.aborted) leave();
    const response = await fetch(new URL(path.replace(/^\//, ""), BASE), {
      method,
      headers: { ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...authorization(), ...headers },
      body: body === undefined ? null : JSON.stringify(body),
      signal: limit.signal,
      cache: "no-store",
    });
    if (response.status === 401 && !("Authorization" in headers)) keyRefused();
    if (!response.ok) throw await problemOf(response);
    return { response, done };
  } catch (error) {
    done();
    throw error instanceof ApiError ? error : unreachable(error, signal);
  }
}

/** The problem document that a failed response carries, or what its status says. @param {Response} response */
export async function problemOf(response) {
  const document = await response.json().catch(() => ({}));
  const text = (/** @type {unknown} */ value) => (typeof value === "string" && value ? value : null);
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  const errors = Array.isArray(document?.errors) ? document.errors : [];
  return new ApiError({
    status: response.status,
    title: text(document?.title) ?? (response.statusText || `HTTP ${response.status}`),
    detail: text(document?.detail),
    errors: errors.filter((/** @type {any} */ each) => text(each?.field) !== null && text(each?.message) !== null),
    retryAfter: Number.isFinite(seconds) ? seconds : null,
  });
}

/**
 * Why there was no answer. Who called off the call gets the abort itself.
 * @param {unknown} error @param {AbortSignal} [signal]
 */
function unreachable(error, signal) {
  if (signal?.aborted) return /** @type {Error} */ (error);
  const late = error instanceof DOMException && error.name === "TimeoutError";
  return new ApiError({
    status: 0,
    title: late ? "No answer in time" : "The service cannot be reached",
    detail: late
      ? "The service took too long to answer. It may be busy; try again."
      : "Is it running, and is this machine connected to it? The page tries again when you ask.",
  });
}

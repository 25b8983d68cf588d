// @ts-check
/**
 * The events of a search as they come (SSE over fetch, because EventSource sends no key). A stream that breaks off is taken
 * up again where it ended, by the id of its last event, with waits that grow and are never the same for two readers.
 */
import { ApiError, BASE, authorization, problemOf } from "./api.js";

/** The service sends something every 15 s; a stream that is silent for so long is dead. */
const SILENCE_MS = 40_000;
const FIRST_WAIT_MS = 500;
const MOST_WAIT_MS = 15_000;

/** @typedef {import("./search-model.js").SearchEvent} SearchEvent */
/** @typedef {"connected"|"reconnecting"|"ended"} StreamState */

/**
 * Follow a search to its end. Resolves when it is over or `signal` is aborted; rejects with an ApiError where trying again
 * would not help (no such search, no right to it). An event of the kind `gap` says that events were missed: load the tree.
 * @param {string} searchId
 * @param {{onEvent: (event: SearchEvent) => void, onState?: (state: StreamState) => void, signal: AbortSignal}} options
 */
export async function follow(searchId, { onEvent, onState = () => {}, signal }) {
  /** @type {string|null} */
  let last = null;
  let failures = 0;
  while (!signal.aborted) {
    let wait = 0;
    try {
      const outcome = await read(searchId, last, signal, (event) => {
        failures = 0;
        last = event.id ?? last;
        onEvent(event);
      }, () => onState("connected"));
      if (outcome === "ended") {
        onState("ended");
        return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 429) throw error;
      if (error instanceof ApiError && error.retryAfter !== null) wait = Math.min(error.retryAfter * 1000, 60_000);
    }
    if (signal.aborted) return;
    onState("reconnecting");
    failures += 1;
    const most = Math.min(MOST_WAIT_MS, FIRST_WAIT_MS * 2 ** (failures - 1));
    await pause(Math.max(wait, most / 2 + (Math.random() * most) / 2), signal);
  }
}

/**
 * One connection. "ended": the search is over; "broken": the stream ended before.
 * @param {string} searchId @param {string|null} last @param {AbortSignal} signal
 * @param {(event: SearchEvent) => void} onEvent @param {() => void} onOpen
 * @returns {Promise<"ended"|"broken">}
 */
async function read(searchId, last, signal, onEvent, onOpen) {
  const connection = new AbortController();
  const leave = () => connection.abort();
  signal.addEventListener("abort", leave);
  let watchdog = setTimeout(leave, SILENCE_MS);
  try {
    const response = await fetch(new URL(`search/${encodeURIComponent(searchId)}/events`, BASE), {
      headers: { Accept: "text/event-stream", ...authorization(), ...(last === null ? {} : { "Last-Event-ID": last }) },
      signal: connection.signal,
      cache: "no-store",
    });
    if (response.status === 204) return "ended";
    if (!response.ok || response.body === null) throw await problemOf(response);
    onOpen();
    const parser = new EventParser();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return "broken";
      clearTimeout(watchdog);
      watchdog = setTimeout(leave, SILENCE_MS);
      for (const event of parser.take(value)) {
        onEvent(event);
        if (event.kind === "end") return "ended";
      }
    }
  } finally {
    clearTimeout(watchdog);
    signal.removeEventListener("abort", leave);
    connection.abort();
  }
}

/** Server-sent events out of text that comes in pieces (HTML standard, section 9.2.6). Data of each is one JSON object. */
export class EventParser {
  constructor() {
    this._rest = "";
    this._kind = "";
    /** @type {string[]} */
    this._data = [];
    /** @type {string|null} */
    this._id = null;
  }

  /** The events that this piece completes. @param {string} text @returns {SearchEvent[]} */
  take(text) {
    /** @type {SearchEvent[]} */
    const events = [];
    const lines = (this._rest + text).split("\n");
    this._rest = lines.pop() ?? "";
    for (const each of lines) {
      const line = each.endsWith("\r") ? each.slice(0, -1) : each;
      if (line !== "") this._field(line);
      else if (this._data.length > 0) events.push(...this._complete());
    }
    return events;
  }

  /** @param {string} line */
  _field(line) {
    const colon = line.indexOf(":");
    // A line that begins with a colon is a comment: the service's pings.
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this._kind = value;
    else if (name === "data") this._data.push(value);
    else if (name === "id") this._id = value;
  }

  /** @returns {SearchEvent[]} */
  _complete() {
    const [kind, text, id] = [this._kind || "message", this._data.join("\n"), this._id];
    [this._kind, this._data, this._id] = ["", [], null];
    try {
      return [{ kind, id, data: JSON.parse(text) }];
    } catch {
      // What is no JSON comes from no service of ours.
      return [];
    }
  }
}

/** Wait; ends sooner when the browser is online again, or the reader has gone. @param {number} ms @param {AbortSignal} signal */
function pause(ms, signal) {
  return /** @type {Promise<void>} */ (
    new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        removeEventListener("online", end);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      addEventListener("online", end);
      signal.addEventListener("abort", end);
    })
  );
}

// @ts-check
/** Result files of `ratchet eval`, read in this browser: of each line the problem, whether it was solved, and the answer. */

/** @typedef {{id: string, source: string, reference: string, answer: string|null, correct: boolean, search: string|null}} Line */
/** @typedef {{name: string, tries: number, problems: {id: string, right: number}[], lines: Map<string, Line[]>}} EvalFiles */

const MOST_BYTES = 50_000_000;
const MOST_PROBLEMS = 5000;
const MOST_FILES = 16;

/** What a person is told about a file that cannot be used. */
export class FileError extends Error {}

/**
 * The evaluation that files hold: one for each seed; a problem counts if all have it. Throws FileError.
 * @param {File[]} files @returns {Promise<EvalFiles>}
 */
export async function readEvaluation(files) {
  if (files.length > MOST_FILES) throw new FileError(`${files.length} files are more than the ${MOST_FILES} seeds that can be compared.`);
  const read = await Promise.all(files.map(readFile));
  const [first = new Map(), ...others] = read;
  const ids = [...first.keys()].filter((id) => others.every((lines) => lines.has(id)));
  if (ids.length === 0) throw new FileError("These files have no problem in common: choose files of one strategy, one for each seed.");
  const lines = new Map(ids.map((id) => [id, read.map((each) => /** @type {Line} */ (each.get(id)))]));
  const problems = ids.map((id) => ({ id, right: (lines.get(id) ?? []).filter((line) => line.correct).length }));
  const name = files.map((each) => each.name).join(", ");
  return { name: name.length > 300 ? `${name.slice(0, 299)}…` : name, tries: files.length, problems, lines };
}

/** @param {File} file @returns {Promise<Map<string, Line>>} */
async function readFile(file) {
  if (file.size > MOST_BYTES) throw new FileError(`${file.name} has ${Math.round(file.size / 1e6)} MB; result files of ${MOST_PROBLEMS} problems have less than ${MOST_BYTES / 1e6}.`);
  /** @type {Map<string, Line>} */
  const found = new Map();
  const texts = (await file.text()).split("\n");
  for (const [place, text] of texts.entries()) {
    if (text.trim() === "") continue;
    const line = lineOf(text);
    if (line === null) {
      // A run that was killed while it wrote leaves half a line.
      if (place === texts.length - 1 && found.size > 0) continue;
      throw new FileError(`${file.name}, line ${place + 1}: this is no line of a result file of ratchet eval, which has one JSON object for each problem, with the fields id and correct.`);
    }
    found.set(line.id, line);
    if (found.size > MOST_PROBLEMS) throw new FileError(`${file.name} has more than ${MOST_PROBLEMS} problems: that is more than can be compared.`);
  }
  if (found.size === 0) throw new FileError(`${file.name} is empty.`);
  return found;
}

/** @param {string} text @returns {Line|null} */
function lineOf(text) {
  try {
    const { id, correct, source, reference, answer, search } = JSON.parse(text);
    if (typeof id !== "string" || !/^[0-9a-f]{16}$/.test(id) || typeof correct !== "boolean") return null;
    const word = (/** @type {unknown} */ value) => (value == null ? null : String(value));
    return { id, correct, source: word(source) ?? "", reference: word(reference) ?? "", answer: word(answer), search: word(search) };
  } catch {
    return null;
  }
}

"""A verified answer as a row."""

from ratchet.exports.shapes import Row
from ratchet.problems import problem_id
from ratchet.solutions.programs import program_of
from ratchet.store.exported import VerifiedAnswer


def answer_row(answer: VerifiedAnswer, id_: str | None = None, number: int | None = None) -> Row:
    """The row; `id_` is the problem's id where its reference answer is known, `number` that of the round."""
    program = answer.program if answer.program is not None else program_of(answer.steps)
    return {
        "problem": answer.problem,
        "answer": answer.answer,
        "program": program,
        "probability": answer.probability,
        "level": str(answer.level),
        "search": str(answer.search),
        "proof_sha256": None if answer.proof is None else answer.proof.get("sha256"),
        "policy": answer.models.get("policy"),
        "prm": answer.models.get("prm"),
        "problem_id": id_ or problem_id(answer.problem, answer.answer),
        "round": number,
    }

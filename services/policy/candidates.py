"""What an engine has written or read, in the contract's words: candidates of steps, and how likely each step was."""

from bisect import bisect_left
from collections.abc import Sequence

from ratchet.contracts.policy import Candidate, FinishReason, Prefix, Until
from ratchet.solutions.step_formats import StepFormat
from services.policy.engines.base import Completion, Ended, Reading


def candidate(
    completion: Completion, until: Until, step_format: StepFormat, meaning: dict[str, FinishReason]
) -> Candidate:
    """A completion as the contract has it; `meaning` says what each stop string stands for."""
    if completion.ended is Ended.LENGTH:
        finish = FinishReason.LENGTH
    elif completion.ended is Ended.STOP and completion.stopped_by is not None:
        finish = meaning[completion.stopped_by]
    else:
        finish = FinishReason.END
    steps, final = step_format.split(completion.text, until, finish)
    starts = step_starts(completion.text, steps)
    return Candidate(
        text=completion.text,
        steps=steps,
        final=final,
        tokens=completion.tokens,
        mean_logprob=completion.mean_logprob,
        step_logprobs=step_means(starts, completion.ends, completion.logprobs),
        finish_reason=finish,
    )


def trajectory_logprobs(
    trajectory: Prefix, text: str, reading: Reading, step_format: StepFormat
) -> list[float]:
    """Mean log-probability of each step of a trajectory, whose rendered `text` an engine has read."""
    begin = len(step_format.render(Prefix(problem=trajectory.problem)))
    return step_means(step_starts(text, trajectory.steps, begin), reading.ends, reading.logprobs)


def step_starts(text: str, steps: list[str], begin: int = 0) -> list[int]:
    """Where each step starts in the text, from `begin` on (characters)."""
    starts: list[int] = []
    for step in steps:
        found = text.find(step, begin)
        starts.append(max(begin, found))
        begin = starts[-1] + len(step)
    return starts


def step_means(starts: list[int], ends: Sequence[int], logprobs: Sequence[float]) -> list[float]:
    """Mean log-probability of each step's tokens; a token belongs to the last step that starts before the token ends.

    What precedes the first step is left out. A step without a token of its own has 0.
    """
    sums = [(0.0, 0)] * len(starts)
    for end, logprob in zip(ends, logprobs, strict=True):
        step = bisect_left(starts, end) - 1
        if step >= 0:
            total, count = sums[step]
            sums[step] = (total + logprob, count + 1)
    return [min(0.0, total / max(1, count)) for total, count in sums]

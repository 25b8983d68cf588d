"""Which programs stand for an answer, how do they behave, and how often was the same behaviour found independently?

Programs are re-executed from nothing in a clean jail, and again with the problem's quantities changed. Those that answer all
changes alike are one function; the function that was found most often speaks for the answer, one that responds to the changes
before one that does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ratchet.clients import SandboxClient
from ratchet.contracts.sandbox import RunStepsResponse
from ratchet.solutions.answers import same_answer
from ratchet.solutions.behaviour import Behaviour, Question, ask_variants, behaviour_of
from ratchet.solutions.canonical import count_forms
from ratchet.solutions.clean_runs import clean_answer, clean_run, run_from_nothing
from ratchet.solutions.counterfactual import Variant, telling_variants
from ratchet.solutions.independence import Independence
from ratchet.solutions.programs import fingerprint, program_of
from services.search.votes import Group, Trajectory

MAX_PROGRAMS = 8
"""Programs of one answer that are re-executed: enough for any agreement, and bounded."""


@dataclass(frozen=True, slots=True)
class ConfirmedProgram:
    """A program that gave its answer again."""

    trajectories: tuple[Trajectory, ...]
    """Those that found it, in the same words but for names; the best first."""
    stdout: tuple[str, ...]
    """What each step printed when it ran again."""
    behaviour: Behaviour

    @property
    def best(self) -> Trajectory:
        return self.trajectories[0]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What stands behind an answer: programs of one behaviour, and how often each was found independently."""

    programs: tuple[ConfirmedProgram, ...] = ()
    """The one that speaks for the answer first; none where no program gave the answer again."""
    found: tuple[int, ...] = ()
    """For each program: independent finds that no program before it accounts for."""
    variants: tuple[Variant, ...] = ()
    """What the programs were asked."""

    @property
    def independent_programs(self) -> int:
        return sum(self.found)

    @property
    def forms(self) -> int:
        """How many of the programs differ in what they compute on the way."""
        return count_forms((program.best.texts for program in self.programs), compute=self.grounded is None)

    @property
    def grounded(self) -> bool | None:
        """None where it cannot be told."""
        return self.programs[0].behaviour.grounded if self.programs else None


async def gather_evidence(
    group: Group,
    variants: Sequence[Variant],
    sandbox: SandboxClient,
    draws: Mapping[str, int],
    *,
    one_is_enough: bool,
) -> Evidence:
    """Re-execute the answer's programs and their variants, at most MAX_PROGRAMS of them.

    `draws`: how often the policy began with each first step. `one_is_enough`: the best program alone, and the others only
    where it does not stand; no behaviours are compared, so the few variants that tell whether it responds are enough.
    Raises ServiceError, SandboxFailedError.
    """
    if one_is_enough:
        variants = telling_variants(variants)
    by_form: dict[str, list[Trajectory]] = {}
    for trajectory in group.trajectories:
        by_form.setdefault(fingerprint(program_of(trajectory.texts)), []).append(trajectory)
    programs = list(by_form.values())[:MAX_PROGRAMS]
    confirmed: list[ConfirmedProgram] = []
    for tried in (programs[:1], programs[1:]) if one_is_enough else (programs,):
        confirmed += await _confirm(tried, group.answer, variants, sandbox)
        if any(program.behaviour.grounded is not False for program in confirmed):
            break
    return replace(_strongest(confirmed, draws), variants=tuple(variants))


async def _confirm(
    programs: Sequence[Sequence[Trajectory]],
    answer: str,
    variants: Sequence[Variant],
    sandbox: SandboxClient,
) -> list[ConfirmedProgram]:
    """Those of the programs, each given by its trajectories, that give the answer again; with their behaviour."""
    outputs = await run_from_nothing(
        [clean_run(found[0].texts) for found in programs], sandbox, _outputs_and_answer
    )
    standing: list[tuple[Sequence[Trajectory], tuple[str, ...], str]] = []
    for found, ran in zip(programs, outputs, strict=True):
        if ran is not None and await same_answer(sandbox, ran[1], answer):
            standing.append((found, *ran))
    answers = await ask_variants(
        [Question(found[0].texts, printed, variants) for found, _, printed in standing], sandbox
    )
    return [
        ConfirmedProgram(tuple(found), stdout, behaviour_of(found[0].texts, printed, keys))
        for (found, stdout, printed), keys in zip(standing, answers, strict=True)
    ]


def _outputs_and_answer(ran: RunStepsResponse) -> tuple[tuple[str, ...], str] | None:
    """What each step printed, and the answer; None where the program gives none."""
    answer = clean_answer(ran)
    return None if answer is None else (tuple(step.stdout for step in ran.steps), answer)


def _strongest(confirmed: Sequence[ConfirmedProgram], draws: Mapping[str, int]) -> Evidence:
    """The behaviour that is grounded and was found independently most often; of equals the one with the best program."""
    alike: dict[str, list[ConfirmedProgram]] = {}
    for program in confirmed:
        # Where nothing could be changed, all that is known is that they give the same answer.
        behaviour = program.behaviour
        alike.setdefault("" if behaviour.grounded is None else behaviour.signature, []).append(program)
    found = [_evidence(programs, Independence(draws)) for programs in alike.values()]
    # `max` takes the first of equals.
    return max(
        found,
        key=lambda evidence: (evidence.grounded is not False, evidence.independent_programs),
        default=Evidence(),
    )


def _evidence(programs: Sequence[ConfirmedProgram], independence: Independence) -> Evidence:
    """How often each was found. Where nothing could be changed a program counts once: what agrees must be written otherwise."""
    found: list[int] = []
    forms: set[str] = set()
    for program in programs:
        behaviour = program.behaviour
        if behaviour.grounded is None:
            found.append(0 if behaviour.signature in forms else independence.count(program.trajectories, 1))
            forms.add(behaviour.signature)
        else:
            found.append(independence.count(program.trajectories))
    return Evidence(tuple(programs), tuple(found))

"""The problems as a task of Inspect AI, with its own scorer. Run by its own command line, in an environment that has it."""

import os

from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.scorer import match
from inspect_ai.solver import generate


@task  # type: ignore[untyped-decorator,unused-ignore]
def problems() -> Task:
    """Question and number; the last number of the completion counts."""
    dataset = json_dataset(os.environ["PROBLEMS"], FieldSpec(input="question", target="number", id="id"))
    return Task(dataset=dataset, solver=generate(), scorer=match(numeric=True))

"""Problems like GSM8K's as a task of Inspect AI, with its own scorer."""

import os

from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.scorer import match
from inspect_ai.solver import generate


@task
def remembered() -> Task:
    dataset = json_dataset(os.environ["FACADE_DATA"], FieldSpec(input="question", target="number"))
    return Task(dataset=dataset, solver=generate(), scorer=match(numeric=True))

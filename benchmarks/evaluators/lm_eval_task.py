"""A problem file as a task of lm-eval: filter, metric and stops are those of its own gsm8k."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "problems"
METRIC = "exact_match,strict-match"
"""Its accuracy, in a report."""
_TASK = """\
task: problems
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {generation}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"]
filter_list:
  - name: strict-match
    filter:
      - function: regex
        regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)"
      - function: take_first
"""


def write_task(folder: Path, data: Path, **told: Any) -> None:
    """The task's file in the folder, for `--include_path`; `told` goes into the body of each request."""
    generation: Mapping[str, Any] = {
        "until": ["Question:", "</s>", "<|im_end|>"],
        "do_sample": False,
        "temperature": 0.0,
        **told,
    }
    # JSON is YAML.
    task = _TASK.format(data=data, generation=json.dumps(generation))
    (folder / f"{NAME}.yaml").write_text(task)

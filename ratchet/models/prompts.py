"""Which step format a model gets: its own, the one that measured best for it, or one that every model understands.

A checkpoint that we trained says it in its config. For other models it was measured (`python -m benchmarks.prompts`).

Limits: a chat template that opens a block of thoughts in the assistant's turn gets the program inside of it.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ratchet.contracts.serving import FormatName
from ratchet.models.mirror import MIRRORS
from ratchet.solutions.step_formats import (
    CONFIG_KEY,
    ChatFrame,
    Markers,
    StepFormat,
    chat_format,
    few_shot,
)

MEASURED: dict[str, FormatName] = {"small": "chat", "medium": "chat"}
"""By the names in `MIRRORS`; the same models from the hub count as well."""
UNMEASURED: FormatName = "few_shot"

_MESSAGE, _ANSWER = "<<the message>>", "<<the answer>>"


def choose(setting: Literal["auto"] | FormatName, checkpoint: Path, *versions: str) -> StepFormat:
    """The format that the setting names; `auto` asks the checkpoint's config, then what measured best for this model.

    `versions` are the names under which the model is known. Raises ValueError where the format cannot be had.
    """
    name: str = setting
    if setting == "auto":
        own = json.loads((checkpoint / "config.json").read_text()).get(CONFIG_KEY)
        name = str(own) if own is not None else measured(versions)
    if name == "markers":
        return Markers()
    if name == "few_shot":
        return few_shot()
    if name == "chat":
        return chat_format(read_chat_frame(checkpoint))
    raise ValueError(
        f"the checkpoint asks for the step format {name!r}; known are markers, few_shot and chat"
    )


def measured(versions: Iterable[str]) -> FormatName:
    """What measured best for the model that one of these versions (`name@digest`) names, UNMEASURED for others."""
    known = {mirror.hub_id.partition("/")[2]: name for name, mirror in MIRRORS.items()}
    for version in versions:
        name = version.partition("@")[0]
        if (found := MEASURED.get(known.get(name, name))) is not None:
            return found
    return UNMEASURED


def read_chat_frame(checkpoint: Path) -> ChatFrame:
    """The chat template in a checkpoint's tokenizer, as the texts around the messages. Raises ValueError."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer in {checkpoint} has no chat template, which the step format chat needs. Set "
            "RATCHET_STEP_FORMAT=few_shot."
        )
    asked = [{"role": "user", "content": _MESSAGE}]
    answered = [*asked, {"role": "assistant", "content": _ANSWER}]
    try:
        opened = str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
        closed = str(tokenizer.apply_chat_template(answered, tokenize=False))
    except Exception as error:  # A template is a foreign program: what it raises is its own affair.
        raise ValueError(f"the chat template in {checkpoint} fails: {error}") from error
    before, found, between = opened.partition(_MESSAGE)
    if not found or _MESSAGE in between:
        raise ValueError(f"the chat template in {checkpoint} does not show the message once, as it is")
    # Where the tokenizer begins every text with this token itself, it would stand there twice.
    if (start := tokenizer.bos_token) and tokenizer("")["input_ids"] == [tokenizer.bos_token_id]:
        before = before.removeprefix(start)
    # A template may show no answers; the tokenizer's end token then ends a turn.
    end_of_turn = closed.rpartition(_ANSWER)[2] if _ANSWER in closed else ""
    return ChatFrame(before, between, end_of_turn)

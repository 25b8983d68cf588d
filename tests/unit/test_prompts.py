"""Which step format a model gets, and what is read of its chat template."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ratchet.contracts.policy import FinishReason, Prefix, Until
from ratchet.models.mirror import MIRRORS
from ratchet.models.prompts import MEASURED, UNMEASURED, choose, measured, read_chat_frame
from ratchet.solutions.step_formats import CONFIG_KEY
from tests.models import make_checkpoint

TEMPLATE = (
    "{%- if messages[0].role != 'system' %}<|sys|>Be good.<|end|>\n{% endif %}"
    "{%- for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = make_checkpoint(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def write_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)


def test_the_checkpoint_chooses_the_format(tmp_path: Path) -> None:
    write_config(tmp_path, "{}")
    assert choose("auto", tmp_path).name == UNMEASURED
    assert choose("markers", tmp_path).name == "markers"
    write_config(tmp_path, f'{{"{CONFIG_KEY}": "markers"}}')
    assert choose("auto", tmp_path, "small@1").name == "markers", "before what was measured for the name"
    assert choose("few_shot", tmp_path).name == "few_shot"
    write_config(tmp_path, f'{{"{CONFIG_KEY}": "haiku"}}')
    with pytest.raises(ValueError, match="haiku"):
        choose("auto", tmp_path)


def test_what_was_measured_for_a_model_follows_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEASURED, "this", "markers")
    assert measured(["this@3f2a"]) == "markers"
    assert measured(["b", "this@3f2a"]) == "markers"
    assert measured(["3f2a@this"]) == measured([]) == UNMEASURED


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_every_model_with_a_mirror_was_measured_wherever_it_comes_from(name: str) -> None:
    from_hub = MIRRORS[name].hub_id.partition("/")[2] + "@3f2a"
    assert MEASURED[name] == measured([f"{name}@3f2a"]) == measured([from_hub])


def test_a_chat_prompt_is_what_the_template_makes_of_it(checkpoint: Path) -> None:
    frame = read_chat_frame(checkpoint)
    assert frame.before == "<|sys|>Be good.<|end|>\n<|user|>"
    assert (frame.between, frame.end_of_turn) == ("<|end|>\n<|assistant|>", "<|end|>\n")
    form = choose("chat", checkpoint)
    prompt = form.render(Prefix(problem="What is 2 + 3?"))
    asked = prompt.removeprefix(frame.before).partition(frame.between)[0]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    messages = [{"role": "user", "content": asked}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == f"{whole}```python\n"
    assert form.stops(Until.END)["<|end|>"] is FinishReason.END


def test_a_template_that_shows_no_answer_ends_no_turn(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("{{ messages[0].content }}<|assistant|>")
    assert read_chat_frame(checkpoint).end_of_turn == ""
    assert choose("chat", checkpoint).ending("<|end|>") == "```<|end|>"


def test_a_token_that_the_tokenizer_puts_before_every_text_stands_there_once(checkpoint: Path) -> None:
    from tokenizers import Tokenizer, processors

    (checkpoint / "chat_template.jinja").write_text("{{ bos_token }}" + TEMPLATE)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.bos_token = "<|end|>"
    tokenizer.save_pretrained(checkpoint)
    assert read_chat_frame(checkpoint).before.startswith("<|end|><|sys|>"), "this tokenizer adds none"
    file = str(checkpoint / "tokenizer.json")
    backend = Tokenizer.from_file(file)
    backend.post_processor = processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", backend.token_to_id("<|end|>"))]
    )
    backend.save(file)
    assert read_chat_frame(checkpoint).before.startswith("<|sys|>")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "no chat template.*RATCHET_STEP_FORMAT=few_shot"),
        ("{{ raise_exception('only systems') }}", "fails: only systems"),
        ("{{ nothing.at.all }}", "fails: "),
        ("{% for", "fails: "),
        ("hello", "does not show the message"),
        ("{{ messages[0].content * 2 }}", "does not show the message once"),
    ],
)
def test_a_template_that_gives_no_prompt_is_an_error_that_says_why(
    checkpoint: Path, template: str | None, said: str
) -> None:
    file = checkpoint / "chat_template.jinja"
    if template is None:
        file.unlink()
    else:
        file.write_text(template)
    with pytest.raises(ValueError, match=said):
        choose("chat", checkpoint)

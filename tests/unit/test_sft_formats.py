"""What a policy is trained on is what the policy service reads and lets the model write, token by token, in every format."""

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ratchet.contracts.policy import FinishReason, Prefix, Until
from ratchet.contracts.serving import FormatName
from ratchet.contracts.training import Lora, SftConfig
from ratchet.models.mirror import MIRRORS
from ratchet.models.prompts import choose, read_chat_frame
from ratchet.solutions.step_formats import CONFIG_KEY, ChatFrame, chat_format, few_shot_format
from services.policy.candidates import candidate
from services.policy.engines.base import Ended, Sampling, end_tokens
from services.policy.engines.transformers import TransformersEngine
from services.trainer.training.jobs import SftJob, TrainingFailedError
from services.trainer.training.sft import Demonstration, encode, train
from tests.models import make_checkpoint

NANO = Path("models/nano/policy")
SMALL = Path("~/.cache/ratchet/models/small").expanduser()
TEMPLATE = (
    "{%- for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Line breaks, blanks and letters on both sides of every boundary, where a tokenizer could merge.
PROBLEMS = ("How many?", "What is 1 +\n 1 =", "x ", "Ends with a break.\n")
STEPS = ["    indented = (1)", "# Step 2: Two lines.\n\nx = 2", "print(x)"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_checkpoint(tmp_path_factory.mktemp("formats") / "tiny")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def checkpoint_of(name: str, tiny: Path) -> Path:
    folder = {"tiny": tiny, "nano": NANO, "small": SMALL}[name]
    if name == "small" and not (folder / "tokenizer.json").is_file():
        pytest.skip(f"{MIRRORS['small'].hub_id} is not in the cache; `ratchet up --model small` fetches it")
    return folder


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("nano", "markers"),
        ("tiny", "markers"),
        ("tiny", "chat"),
        ("tiny", "few_shot"),
        ("small", "chat"),
        ("small", "few_shot"),
        ("small", "markers"),
    ],
)
def test_the_tokens_of_a_training_are_those_of_the_policy_service(
    model: str, name: FormatName, tiny: Path
) -> None:
    folder = checkpoint_of(model, tiny)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    form = choose(name, folder)
    for problem in PROBLEMS:
        example = encode(tokenizer, form, Demonstration(id="1", problem=problem, steps=STEPS))
        # The service tokenises a prompt as a text of its own (Engine.encode): of the problem, and of what is written by then.
        prompts = [form.render(Prefix(problem=problem, steps=STEPS[:count])) for count in range(len(STEPS))]
        seen = tokenizer(prompts)["input_ids"]
        assert seen[0] == example.ids[: example.prompt]
        for ids in seen[1:]:
            assert ids == example.ids[: len(ids)]
        # What a model would write, had it written the text in the usual tokens.
        written = form.join(STEPS) + form.ending(tokenizer.eos_token)
        assert tokenizer.decode(example.ids) == prompts[0] + written
        assert tokenizer(prompts[0] + written)["input_ids"] == example.ids
        assert any(stop in written for stop in form.stops(Until.END))
        if name != "few_shot":
            assert example.ids[-1] in end_tokens(folder, tokenizer)


def test_how_a_solution_ends_follows_the_chat_template_and_the_examples(tiny: Path) -> None:
    assert choose("chat", tiny).ending("</s>") == "```<|end|>"
    assert read_chat_frame(tiny).end_of_turn == "<|end|>\n"
    assert chat_format(ChatFrame("", "", "")).ending("</s>") == "```</s>", "a template that ends no turn"
    assert choose("few_shot", tiny).ending("</s>") == "\nProblem:", "the next example"
    assert few_shot_format("{problem}").ending("</s>") == "</s>"
    assert choose("markers", tiny).ending("</s>") == "<end_of_code></s>"


@pytest.mark.parametrize("name", ["chat", "markers", "few_shot"])
@pytest.mark.parametrize("lora", [None, Lora(r=16, alpha=64)])
async def test_a_policy_writes_what_it_was_taught_and_stops_where_the_service_looks(
    name: FormatName, lora: Lora | None, tiny: Path, tmp_path: Path
) -> None:
    steps = ["# Step 1: Count all cups.\ncups = 4 * 12", "# Step 2: Take away.\nprint(cups - 5)"]
    taught = Demonstration(id="1", problem="How many cups?", steps=steps)
    data = tmp_path / "data.jsonl"
    data.write_text(taught.model_dump_json() + "\n")
    config = SftConfig(epochs=60, lr=1e-2, max_length=2048, dtype="fp32", threads=1, lora=lora)
    job = SftJob(base=tiny, data=data, out=tmp_path / "out", step_format=name, config=config)
    result = train(job)
    assert result.step_format == name
    assert result.final_loss < 0.05

    folder = job.out / "model"
    form = choose("auto", folder, "run-r1-policy@3f2a91c0")
    assert form.name == name, f"the checkpoint says it ({CONFIG_KEY})"
    engine = TransformersEngine(folder, "test", device="cpu")
    await engine.start()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    example = encode(tokenizer, form, taught)
    try:
        meaning = form.stops(Until.END)
        prompts = engine.encode([form.render(Prefix(problem=taught.problem))])
        assert prompts[0] == example.ids[: example.prompt]
        sampling = Sampling(temperature=0.0, max_tokens=200, stop=tuple(meaning))
        [[written]] = await engine.generate(prompts, sampling)
        found = candidate(written, Until.END, form, meaning)
        assert (found.steps, found.final, found.finish_reason) == (steps, True, FinishReason.END)
        assert written.ended is Ended.STOP
        # The turn's last token is not waited for: the closing fence, or marker, has ended the program.
        last = 0 if name == "few_shot" else 1
        assert written.tokens == len(example.ids) - example.prompt - last

        meaning = form.stops(Until.STEP)
        prompts = engine.encode([form.render(Prefix(problem=taught.problem, steps=steps[:1]))])
        [[written]] = await engine.generate(
            prompts, Sampling(temperature=0.0, max_tokens=200, stop=tuple(meaning))
        )
        found = candidate(written, Until.STEP, form, meaning)
        assert found.steps == steps[1:]
    finally:
        await engine.stop()


def test_a_base_without_a_chat_template_cannot_be_trained_in_it(tiny: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "plain"))
    (base / "chat_template.jinja").unlink()
    data = tmp_path / "data.jsonl"
    data.write_text(Demonstration(id="1", problem="How many?", steps=["print(1)"]).model_dump_json() + "\n")
    with pytest.raises(TrainingFailedError, match=r"step format chat: .* no chat template"):
        train(SftJob(base=base, data=data, out=tmp_path / "out", step_format="chat"))

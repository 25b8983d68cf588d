"""Tiny checkpoints that tests make themselves: random policies and PRMs, and a policy that knows a few solutions by heart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.contracts.prm import Calibration
from ratchet.models.prm_head import CONFIG_KEY

CORPUS = [
    "# Step 1: Count all cups.\ncups = 4 * 12\n# Step 2: Take away the broken ones.\nprint(cups - 5)\n",
    "Problem: A shelf holds 4 boxes of 12 cups. 5 cups are broken. How many are whole?\nSolution:\n",
    "Each problem below is solved by a short Python program written in numbered steps. äöü é 你好 🙂\n",
]
CALIBRATION = Calibration(2.0, -0.5)
END, PAD = "<|end|>", "<|pad|>"
TRAINING_STEPS = 120
PEAK_RATE = 1e-2


def make_tokenizer(folder: Path, extra: tuple[str, ...] = (), corpus: Sequence[str] = CORPUS) -> int:
    """Write a byte-level BPE tokenizer; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    tokenizer = Tokenizer(models.BPE())
    # Qwen2's own, which transformers puts in the place of any other when it loads a tokenizer of a Qwen2.
    tokenizer.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END, PAD, *extra],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    fast.save_pretrained(folder)
    return len(fast)


def _tiny_config(words: int) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=words,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )


def make_checkpoint(folder: Path, *, seed: int = 0, step_format: str | None = None) -> Path:
    """A random fp32 Qwen2 of about 0.1 M parameters. Its logits are spread, so that greedy choices are not ties."""
    import torch
    from transformers import Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    words = make_tokenizer(folder, ("<end_of_step>", "<end_of_code>"))
    torch.manual_seed(seed)
    config = _tiny_config(words)
    # Spread, so that greedy choices are not ties.
    config.initializer_range = 0.2
    if step_format is not None:
        config.ratchet_step_format = step_format
    model = Qwen2ForCausalLM(config).float()
    model.save_pretrained(folder)
    return folder


def make_prm(folder: Path, *, seed: int, calibration: Calibration = CALIBRATION) -> Path:
    """A random PRM of the same size, with the files that the trainer writes."""
    import torch
    from transformers import AutoConfig, AutoModelForTokenClassification

    make_checkpoint(folder, seed=seed, step_format="markers")
    config = AutoConfig.from_pretrained(folder)
    config.num_labels = 1
    setattr(config, CONFIG_KEY, calibration.entry())
    torch.manual_seed(seed)
    model = AutoModelForTokenClassification.from_pretrained(folder, config=config)
    torch.nn.init.normal_(model.score.weight, std=0.5)
    model.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Remembered:
    """A problem of the memorised model, and the solutions that it writes: each a weight and its steps."""

    problem: str
    answer: str | None
    solutions: tuple[tuple[float, tuple[str, ...]], ...]


def _counted(thing: str, boxes: int, each: int, lost: int) -> Remembered:
    """Three right programs that differ in structure, a wrong one, and one whose middle step raises NameError."""
    return Remembered(
        f"{boxes} boxes hold {each} {thing} each. {lost} are lost. How many {thing} are left?",
        str(boxes * each - lost),
        (
            (0.34, (f"# Count all.\n{thing} = {boxes} * {each}", f"# Take away.\nprint({thing} - {lost})")),
            (
                0.26,
                (
                    f"# Add box by box.\nsum_ = sum([{each}] * {boxes})",
                    f"# Lose some.\nfor _ in range({lost}):\n    sum_ -= 1",
                    "# Say it.\nprint(sum_)",
                ),
            ),
            (0.12, (f"# At once.\nprint(-{lost} + {each} * {boxes})",)),
            (0.14, (f"# Forget the loss.\nn = {boxes} * {each}", "# Print it.\nprint(n)")),
            (
                0.14,
                (
                    f"# Begin.\nm = {boxes} * {each}",
                    f"# A name that is not there.\nm = m - mising_{lost}",
                    "# Show.\nprint(m)",
                ),
            ),
        ),
    )


REMEMBERED = (
    _counted("cups", 4, 12, 5),
    _counted("pens", 7, 8, 9),
    _counted("eggs", 6, 30, 11),
    _counted("nuts", 3, 25, 4),
    _counted("keys", 9, 5, 6),
    _counted("figs", 8, 15, 20),
)
ENDLESS = Remembered(
    "How long is for ever?", None, ((1.0, ("# Wait for it.\nwhile True:\n    pass", "# Never.\nprint(1)")),)
)
HOPELESS = Remembered(
    "What does nobody know?",
    None,
    (
        (0.5, ("# Ask nobody.\nprint(nobody)",)),
        (0.5, ("# Divide.\nzero = 0", "# By nothing.\nprint(1 / zero)")),
    ),
)


def make_memorised_checkpoint(folder: Path) -> Path:
    """A Qwen2 of about 0.1 M parameters that was taught the solutions of REMEMBERED, ENDLESS and HOPELESS by heart.

    It is a test model: it knows these problems and nothing else, and writes each solution about as often as its weight
    says. It is trained here, in some seconds, in one thread, so that every run gives the same weights.
    """
    import torch
    from tokenizers import Tokenizer
    from transformers import Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    texts = [
        (
            f"{known.problem}\n",
            "".join(f"{step}\n<end_of_step>\n" for step in steps) + "<end_of_code>",
            weight,
        )
        for known in (*REMEMBERED, ENDLESS, HOPELESS)
        for weight, steps in known.solutions
    ]
    words = make_tokenizer(
        folder,
        ("<end_of_step>", "<end_of_code>"),
        [prompt + solution for prompt, solution, _ in texts],
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = []
    for prompt, solution, weight in texts:
        before, after = tokenizer.encode(prompt).ids, tokenizer.encode(solution).ids
        assert tokenizer.encode(prompt + solution).ids == before + after, "a prompt is a prefix of its tokens"
        rows.append((before, [*after, 0], weight))
    longest = max(len(before) + len(after) for before, after, _ in rows)
    ids = torch.ones((len(rows), longest), dtype=torch.long)
    weights = torch.zeros((len(rows), longest))
    for row, (before, after, weight) in enumerate(rows):
        ids[row, : len(before) + len(after)] = torch.tensor(before + after)
        weights[row, len(before) : len(before) + len(after)] = weight
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = _tiny_config(words)
            # With the usual 0.02 a model as small as this one learns several times slower.
            config.initializer_range = 0.1
            config.ratchet_step_format = "markers"
            model = Qwen2ForCausalLM(config).float().train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.0)
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, PEAK_RATE, total_steps=TRAINING_STEPS, pct_start=0.1
            )
            for _ in range(TRAINING_STEPS):
                logits = model(input_ids=ids[:, :-1], use_cache=False).logits
                losses = torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
                ).view(len(rows), -1)
                loss = (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)
    model.eval().save_pretrained(folder)
    _assert_it_knows(model, tokenizer)
    return folder


def _assert_it_knows(model: Any, tokenizer: Any) -> None:
    """Greedy decoding gives a solution of each problem, word for word."""
    import torch

    for known in (*REMEMBERED, ENDLESS, HOPELESS):
        prompt = tokenizer.encode(f"{known.problem}\n").ids
        with torch.inference_mode():
            written = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=120)[0]
        text = tokenizer.decode(written[len(prompt) :].tolist(), skip_special_tokens=False)
        steps = tuple(part.strip("\n") for part in text.split("<end_of_code>")[0].split("<end_of_step>"))
        assert steps[:-1] in [solution for _, solution in known.solutions], (known.problem, text)

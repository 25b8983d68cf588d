"""`make nano`: nano's tokenizer and base policy from nothing, deterministic for a seed on a kind of machine.

A Qwen2 of 0.9 million parameters learns to continue problems with solutions from the weak corpus (corpus.py). It is weak on
purpose: the rounds start from it. Takes a quarter of an hour on one core. Last line: one JSON object with the digest of the
checkpoint as the services report it.

Limits: sums of floating-point numbers differ between kinds of processors, and with them the last bits of the weights.
"""

import argparse
import hashlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
from corpus import Demonstration, demonstrations

from ratchet.contracts.policy import Prefix
from ratchet.models.checkpoint import local_checkpoint
from ratchet.models.sources import DIGESTS_FILE
from ratchet.solutions.step_formats import CONFIG_KEY, END_OF_CODE, END_OF_STEP, Markers

VOCABULARY = 768
END, PAD = "<end>", "<pad>"
FORMAT = Markers()


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 768 tokens, each digit a token of its own, the markers whole."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d| ?\p{L}+|\s*\n|[^\s\p{L}\d]| (?=\d)|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, END_OF_STEP, END_OF_CODE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"{each.problem}\n" + "\n".join(each.steps) for each in islice(demonstrations(seed), 20_000))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)


def config(tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    """The shape of the policy."""
    made = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=384,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    setattr(made, CONFIG_KEY, FORMAT.name)
    return made


def encode(tokenizer: PreTrainedTokenizerFast, each: Demonstration) -> tuple[list[int], int]:
    """Tokens of a demonstration, and how many of them are the prompt's."""
    prompt = tokenizer(FORMAT.render(Prefix(problem=each.problem)))["input_ids"]
    solution = tokenizer(FORMAT.join(each.steps) + END_OF_CODE)["input_ids"]
    return prompt + solution + [tokenizer.eos_token_id], len(prompt)


def batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, batch_tokens: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Padded batches without end, of sequences of like length."""
    stream = demonstrations(seed)
    while True:
        pool = [encode(tokenizer, each) for each in islice(stream, 4096)]
        pool.sort(key=lambda pair: len(pair[0]))
        made = []
        while pool:
            longest = len(pool[-1][0])
            count = max(1, batch_tokens // longest)
            chosen, pool = pool[-count:], pool[:-count]
            ids = torch.full((len(chosen), longest), tokenizer.pad_token_id)
            labels = torch.full((len(chosen), longest), -100)
            for row, (tokens, prompt) in enumerate(chosen):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
            made.append((ids, labels))
        order = torch.randperm(len(made))
        yield from (made[index] for index in order)


def train(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Train the base policy."""
    torch.manual_seed(args.seed)
    model = Qwen2ForCausalLM(config(tokenizer))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=args.lr,
        betas=(0.9, 0.98),
    )
    warmup = max(1, args.steps // 25)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(
            (step + 1) / warmup, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        ),
    )
    began, tokens, smooth = time.monotonic(), 0, 0.0
    for step, (ids, labels) in enumerate(
        islice(batches(tokenizer, args.seed, args.batch_tokens), args.steps)
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            logits = model(input_ids=ids).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        tokens += ids.numel()
        smooth = loss.item() if step == 0 else 0.98 * smooth + 0.02 * loss.item()
        if step % 50 == 0 or step == args.steps - 1:
            seconds = time.monotonic() - began
            line = (
                f"step {step}/{args.steps} loss {smooth:.4f} {tokens / seconds:.0f} tokens/s {seconds:.0f} s"
            )
            print(line, file=sys.stderr, flush=True)
    return model


def main() -> None:
    """Make the tokenizer and the policy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "policy")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    # The same sums in the same order, whatever the machine's number of cores.
    torch.set_num_threads(1)
    tokenizer = make_tokenizer(args.seed)
    model = train(args, tokenizer).to(torch.bfloat16).eval()
    with tempfile.TemporaryDirectory() as cache:
        model.save_pretrained(args.out, safe_serialization=True)
        tokenizer.save_pretrained(args.out)
        write_digests(args.out)
        sha256 = local_checkpoint(args.out, Path(cache)).sha256
    print(json.dumps({"parameters": model.num_parameters(), "steps": args.steps, "sha256": sha256}))


def write_digests(folder: Path) -> None:
    """The SHA-256 of each file, as `sha256sum --check` reads it."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != DIGESTS_FILE)
    for file in files:
        file.chmod(0o644)
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / DIGESTS_FILE).write_text("".join(lines))


if __name__ == "__main__":
    main()

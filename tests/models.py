"""Tiny checkpoints that tests make themselves: a random Qwen2 and a tokenizer trained on a few lines."""

from pathlib import Path

CORPUS = [
    "# Step 1: Count all cups.\ncups = 4 * 12\n# Step 2: Take away the broken ones.\nprint(cups - 5)\n",
    "Problem: A shelf holds 4 boxes of 12 cups. 5 cups are broken. How many are whole?\nSolution:\n",
    "Each problem below is solved by a short Python program written in numbered steps. äöü é 你好 🙂\n",
]
END, PAD = "<|end|>", "<|pad|>"


def make_tokenizer(folder: Path, extra: tuple[str, ...] = ()) -> int:
    """Write a byte-level BPE tokenizer; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END, PAD, *extra],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    fast.save_pretrained(folder)
    return len(fast)


def make_checkpoint(folder: Path, *, seed: int = 0, step_format: str | None = None) -> Path:
    """A random fp32 Qwen2 of about 0.1 M parameters. Its logits are spread, so that greedy choices are not ties."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    words = make_tokenizer(folder, ("<end_of_step>", "<end_of_code>"))
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=words,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    if step_format is not None:
        config.ratchet_step_format = step_format
    model = Qwen2ForCausalLM(config).float()
    model.save_pretrained(folder)
    return folder

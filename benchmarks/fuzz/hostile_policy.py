"""Hostile candidates in the place of some of the real policy's, drawn by the seed of each request."""

import random
from collections.abc import Sequence

from benchmarks.policy_in_front import candidate
from ratchet.contracts.policy import Candidate, GenerateRequest, GenerateResponse, Prefix, Until

PROGRAMS: tuple[tuple[str, ...], ...] = (
    ("# A long answer.\nprint(list(range(600)))",),
    ("# Longer than what is kept.\nprint('7' * 200_000)",),
    ("# Many lines.\nfor i in range(20_000): print(i)",),
    ("# No text at all.\nprint(chr(0) * 50)",),
    ("# Half a character.\nprint('\\ud800 42')",),
    ("# Bytes.\nimport sys\nsys.stdout.buffer.write(bytes(range(256)))",),
    ("# Colours.\nprint('\\x1b[31m42\\x1b[0m\\x1b]0;title\\x07')",),
    ("# Other way round.\nprint('\\u202e42\\u2028\\u0085')",),
    ("# Digits.\nimport sys\nsys.set_int_max_str_digits(0)\nprint(10 ** 4_400)",),
    ("# Not a number.\nprint(float('nan'))",),
    ("# No end.\nprint(float('inf'))",),
    ("# Towers.\nprint('9**9**9**9')",),
    ("# Factorials.\nprint('factorial(99999999)')",),
    ("# Strings in functions.\nprint(\"sin('__import__(1)')\")",),
    ("# Brackets.\nprint('(' * 5_000)",),
    ("# LaTeX.\nprint('\\\\frac{' * 900)",),
    ("# Markup.\nprint('[bold]42[/bold] [link=file:///etc/passwd]x[/link]')",),
    ("# A script.\nprint('<script>alert(1)</script>')",),
    ("# A line of the protocol.\nprint('data: {}\\n\\nevent: end')",),
    ("# JSON.\nprint('{\"answer\": 1e999}')",),
    ("# Nothing.\npass",),
    ("# No code, but\x00a NUL",),
    ("# \x1b[2Jcleared\nx = 1", "# \u202e.\nprint(x)"),
    ("x = '" + "a" * 20_000 + "'", "print(len(x))"),
    ("# Deep.\nx = " + "(" * 190 + "1" + ")" * 190, "print(x)"),
    ("# Too deep.\nx = " + "(" * 5_000 + "1" + ")" * 5_000,),
    ("# Ends.\nimport os\nos._exit(0)",),
    ("# Ends it.\nraise SystemExit('bye')",),
    ("# Recursion.\ndef f(): return f()\nf()",),
    ("# Memory.\nx = 'a' * 10**10",),
    ("# An exception with much to say.\nraise ValueError('y' * 300_000)",),
    ("# One that cannot be told.\nclass E(Exception):\n    def __str__(self): raise self\nraise E",),
)
PIECES = (
    *("\x00", "\x1b[31m", "\u202e", "\u2028", "\x85", "\ufeff", "\x0c", "9" * 4301, "0x" + "f" * 5000),
    *("1e999999", "nan", "٣", "²", "½", "(" * 300, "\\boxed{", "$" * 900, "9**9**9", "1," * 3000, "'", '"""'),
    *("\\", "#", "\n", "\r", "\t", "x", "=", "# Step 2: go on.\n", "```python\n", "print(", "<|im_end|>"),
)


class HostilePolicy:
    """Writes hostile programs for a share of the candidates, so that trees have both, and a round something to learn from."""

    def __init__(self) -> None:
        self.share = 0.0
        """Of the candidates, between 0 and 1."""
        self.written = 0

    def rewrite(self, asked: GenerateRequest, answered: GenerateResponse) -> list[list[Candidate]]:
        """See `policy_in_front.Rewrite`."""

        def row(seed: int, prefix: Prefix, real: Sequence[Candidate]) -> list[Candidate]:
            draw = random.Random(f"{seed} {prefix.steps}")
            return [self._one(each, asked.until, draw) for each in real]

        seeds = asked.seeds or [asked.seed or 0] * len(answered.candidates)
        return list(map(row, seeds, asked.prefixes, answered.candidates))

    def _one(self, real: Candidate, until: Until, draw: random.Random) -> Candidate:
        if draw.random() >= self.share:
            return real
        self.written += 1
        steps: Sequence[str] = draw.choice(PROGRAMS)
        if draw.random() < 0.3:
            steps = ["".join(draw.choices(PIECES, k=draw.randint(1, 6))) or "x"]
        if until is Until.END:
            return candidate(steps, final=True)
        return candidate(steps[:1], final=len(steps) == 1)

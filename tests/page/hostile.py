"""Problems, steps and outputs as an attacker would have them, which the scripted policy writes."""

from tests.page.scripted_policy import Programs

PIECES = (
    "<script>window.hacked = 1</script>",
    "<img src=x onerror=window.hacked=1>",
    "<svg onload=window.hacked=1>",
    "</code></pre><iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "[x](javascript:window.hacked=1)",
    "\u2028\u2029window.hacked=1\u0085",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202egnp.exe\u202c \u2066left\u2069",
    "${window.hacked=1} {{constructor.constructor('window.hacked=1')()}}",
    "__proto__ constructor \U0001f600 \ufeff \u200b" + "\u0301" * 40,
    "W" * 3000,
)
PROBLEM = "How many? " + " ".join(PIECES[:8])[:900]
PROGRAMS: Programs = {
    # What prints ends its program with this answer: the text stands in the step before, and in the answer.
    PROBLEM: (
        ("x = 6", "print(x)"),
        *((f"# {piece}\nx = {piece!r}", "print(x)") for piece in PIECES),
        ("y = 2 * 3", "print(y)"),
        (f"# {PIECES[0]}\nraise ValueError({PIECES[1] + PIECES[6]!r})", "print(1)"),
        (f"import sys\nsys.stderr.write({PIECES[0]!r})\nx = 6", "print(x)"),
    )
}

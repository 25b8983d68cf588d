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
_STEPS = (
    *(f"# {piece}\nx = 6\nprint({piece!r})" for piece in PIECES),
    "import sys\n# " + PIECES[0] + "\nsys.stderr.write(" + repr(PIECES[1] + PIECES[6]) + ")\nx = 6\nprint(x)",
)
PROGRAMS: Programs = {
    PROBLEM: (
        _STEPS[:3],
        ("x = 6", "print(x)"),
        _STEPS[3:7],
        ("y = 2 * 3", "print(y)"),
        (*_STEPS[7:],),
        ("z = 1\nraise ValueError(" + repr(PIECES[0]) + ")", "print(z)"),
        ("print(" + repr(PIECES[1]) + ")",),
    )
}

"""What do kills, outages, hostile callers and many readers do to the system?"""

from collections.abc import Mapping

from benchmarks.tables.documents import Results, Rows, Table

CHAOS = ("chaos-seed0",)
TRAINER, FUZZ = "trainer-kills", "fuzz"


def chaos(results: Results) -> Rows:
    """What happened to searches, and what it cost."""
    runs = [results[name].figures for name in CHAOS]
    rows = [["seed", *(str(each["seed"]) for each in runs)]]
    for title, name in (
        ("searches", "searches"),
        ("kills of random parts", "kills"),
        ("searches completed", "completed"),
        ("lost", "lost"),
        ("failed by an outage", "failed_by_outage"),
        ("failed by what a neighbour did", "neighbours_failed"),
        ("found twice under one key", "duplicate_results"),
        ("given back in an outage", "given_back"),
        ("workers refused by the fence", "fenced_writes"),
        ("taken up in mid-tree by another worker", "resumed_mid_tree"),
    ):
        rows.append([title, *(str(each[name]) for each in runs)])
    shares = (f"{100 * each['tokens_redone_share']:.1f} %" for each in runs)
    return [*rows, ["generated tokens that were paid for twice", *shares]]


def trainer(results: Results) -> Rows:
    """A round with and without kills."""
    found = results[TRAINER].figures
    differing = ", ".join(found["differing"]) or "none"
    return [
        ["what", "figure"],
        ["kills of the trainer in one round", str(found["kills"])],
        ["by stage", ", ".join(f"{stage} {times}" for stage, times in found["kills_by_stage"].items())],
        ["files compared with the undisturbed round's", str(found["files"])],
        ["files that differ", differing],
        ["served checkpoints read again, damaged", f"{found['served_checked']}, {found['served_damaged']}"],
    ]


def fuzz(results: Results) -> Rows:
    """Hostile callers and hostile text."""
    found = results[FUZZ].figures
    return [
        ["what", "figure"],
        ["operations asked; requests", f"{found['operations']}; {found['cases']:,}"],
        ["server errors, tracebacks in logs included", str(found["server_errors"])],
        ["searches; hostile candidates in them", f"{found['searches']}; {found['hostile_candidates']:,}"],
        ["searches and rounds that failed or were begun again", str(found["poisoned"])],
    ]


TABLES: Mapping[str, Table] = {
    "robust-chaos": Table(CHAOS, chaos),
    "robust-trainer": Table((TRAINER,), trainer),
    "robust-fuzz": Table((FUZZ,), fuzz),
}

"""What do kills, outages, hostile callers and many readers do to the system?"""

from collections.abc import Mapping
from typing import Any

from benchmarks.tables.documents import Results, Rows, Table

CHAOS = ("chaos-seed3", "chaos-seed4", "chaos-seed5")
TRAINER, FUZZ, API = "trainer-kills", "fuzz", "api-load"


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
        ("refused by the fence: a worker that had lost the search", "fenced_writes"),
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


def api(results: Results) -> Rows:
    """Many callers, large steps, many readers."""
    figures = results[API].figures
    load, large, idle = figures["load"], figures["large_steps"], figures["idle_readers"]
    used, rates = large["used_bytes"], idle["transactions_per_second"]
    return [
        ["what", "figure"],
        ["submissions from so many clients, beside a round", f"{load['submissions']:,}; {load['clients']}"],
        ["errors", str(load["errors"])],
        ["submissions a second", f"{load['per_second']:g}"],
        ["p99 of a submission against a trivial request by the same client", _ratio(load)],
        ["Redis after so many searches with steps of 64 KiB", _memory(large)],
        ["… at the most, of its limit", f"{_mib(used['most'])} of {_mib(large['maxmemory_bytes'])}"],
        ["idle readers of events", f"{idle['readers']:,}"],
        ["memory of the API for a reader", f"{idle['bytes_a_reader'] / 1024:.0f} KiB"],
        [
            "transactions of Postgres a second, without and with them",
            f"{rates['without']:g}, {rates['with']:g}",
        ],
    ]


def _ratio(load: Mapping[str, Any]) -> str:
    p99 = load["p99_ms"]
    return f"{load['p99_ratio']:.1f} times ({p99['submission']:.0f} ms, {p99['trivial']:.0f} ms)"


def _memory(large: Mapping[str, Any]) -> str:
    return f"{_mib(large['used_bytes']['after'])} after {large['searches']:,}"


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


TABLES: Mapping[str, Table] = {
    "robust-chaos": Table(CHAOS, chaos),
    "robust-trainer": Table((TRAINER,), trainer),
    "robust-fuzz": Table((FUZZ,), fuzz),
    "robust-api": Table((API,), api),
}

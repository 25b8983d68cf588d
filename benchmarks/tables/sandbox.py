"""The sandbox: speed beside its baselines, attacks, soak."""

from typing import Any

from benchmarks.tables.documents import Below, Results, Rows, Table, interval

TREE_WAYS = {
    "replay": "re-execution in the sandbox",
    "rstar": "rStar-Math's way, a new pool for each call",
    "rstar_kept": "the same with a pool that stays",
}


def speed(results: Results) -> Rows:
    """Ratios and rates with their intervals."""
    found = results["sandbox-speed"].figures

    def compared(above: str, below: str) -> str:
        return f"{found['ms'][above]['median']:.1f} / {found['ms'][below]['median']:.1f} ms"

    def line(what: str, name: str, form: str = ".2f") -> list[str]:
        edges = found["ci95"].get(name)
        return [what, f"{found[name]:{form}}", interval(edges, form, 1) if edges else ""]

    fork = "`POST /run_code` of `print(1+1)` over a bare fork and exit of an equally large process"
    return [
        ["what", "figure", "95 %"],
        line(f"{fork}, 20 ms apart ({compared('run', 'bare_fork')})", "run_over_fork"),
        line(
            f"the same back to back ({compared('run_back_to_back', 'bare_fork_back_to_back')})",
            "run_over_fork_back_to_back",
        ),
        line(
            "trivial programs per second and core, through `/run_code/batch`",
            "trivial_per_second_per_core",
            ".0f",
        ),
        line(
            "programs with a sympy solve and an expand, per second and core",
            "sympy_per_second_per_core",
            ".0f",
        ),
        line(
            f"arithmetic step after 16 mixed ones, re-execution over snapshot ({compared('replay', 'snapshot_step')})",
            "snapshot_speedup_depth16",
        ),
        line(
            f"algebra step after 16 mixed ones, the same "
            f"({compared('replay_algebra_last', 'snapshot_step_algebra_last')})",
            "snapshot_speedup_depth16_algebra_last",
        ),
        line(
            f"arithmetic step after 16 arithmetic ones, the same ({compared('replay_trivial', 'snapshot_step_trivial')})",
            "snapshot_speedup_depth16_trivial",
        ),
        line(
            f"arithmetic step after 16 mixed ones, rStar-Math's way over snapshot ({compared('rstar', 'snapshot_step')})",
            "rstar_speedup_depth16",
        ),
    ]


def memory(results: Results) -> Rows:
    """What a kept state costs."""
    found = results["sandbox-speed"].figures
    rows = [["steps", "memory of a snapshot, MB", "so many fit in 4 GiB"]]
    for kind, label in (
        ("mixed", "arithmetic and algebra"),
        ("trivial", "arithmetic"),
        ("algebra", "algebra"),
    ):
        rows.append([label, f"{found[f'snapshot_mb_{kind}']:.1f}", f"{found[f'snapshots_in_4gb_{kind}']:,}"])
    return rows


def whole_trees(results: Results) -> Rows:
    """Other ways over sessions, for a whole tree."""
    found = results["sandbox-speed"].figures
    one, level = found["tree_one_by_one"], found["tree_level_by_level"]
    head = [f"times a session's, tree of {one['nodes']} nodes", "node by node: wall", "processor"]
    rows = [[*head, "level by level: wall", "processor"]]
    for way, label in TREE_WAYS.items():
        cells = [
            f"{tree[f'{way}_over_session_{what}']['median']:.2g}"
            for tree in (one, level)
            for what in ("wall", "cpu")
        ]
        rows.append([label, *cells])
    return rows


def callers(results: Results) -> Rows:
    """Latency and throughput as callers become more."""
    found: list[dict[str, Any]] = results["sandbox-speed"].figures["callers"]
    return [
        ["concurrent callers", *(str(each["callers"]) for each in found)],
        ["p50 of a trivial run, ms", *(f"{each['p50_ms']:.3g}" for each in found)],
        ["p99, ms", *(f"{each['p99_ms']:.3g}" for each in found)],
        ["per second", *(f"{each['per_second']:.0f}" for each in found)],
    ]


def attacks(results: Results) -> Rows:
    """Attacks and controls."""
    found = results["attack"].figures
    return [
        ["", "tried", "as it should be"],
        ["attacks", str(found["attacks"]), f"{found['contained']} contained"],
        [
            "controls: the same without the layers that contain it",
            str(found["controls"]),
            f"{found['controls_tripped']} tripped",
        ],
    ]


def soak(results: Results) -> Rows:
    """What ten minutes of abuse left behind."""
    found = results["soak"].figures
    leaked = sum(value for name, value in found.items() if "leaked" in name)
    return [
        [f"{found['minutes']} minutes", "figure"],
        ["requests", f"{found['requests']:,}"],
        ["processes killed with `-9` below the service", str(found["kills"])],
        ["floods of 200 requests", str(found["floods"])],
        ["wrong results", str(found["wrong_results"])],
        ["leaked processes, descriptors, mounts, control groups, files, threads", str(leaked)],
        [
            "requests that ended in an error that says so: their processes were killed",
            str(found["server_errors"]),
        ],
        ["requests refused as busy", f"{found['refused_busy']:,}"],
        [
            "memory of service and zygotes, before and after",
            f"{found['memory_start_mb']} and {found['memory_end_mb']} MB",
        ],
        ["of them the service itself", f"{found['service_start_mb']} and {found['service_end_mb']} MB"],
    ]


def summary(results: Results) -> Rows:
    """For the README."""
    speed, attack, soak = (results[name].figures for name in ("sandbox-speed", "attack", "soak"))
    leaked = sum(value for name, value in soak.items() if "leaked" in name)
    return [
        ["what", "figure", "command"],
        [
            "attacks contained; controls tripped",
            f"{attack['contained']} of {attack['attacks']}; {attack['controls_tripped']} of {attack['controls']}",
            "`make attack`",
        ],
        [
            "an isolated run over HTTP against a bare fork of an equally large process",
            f"{speed['run_over_fork']:.1f} times as long",
            "`make bench-sandbox`",
        ],
        [
            "programs per second and core: trivial, sympy",
            f"{speed['trivial_per_second_per_core']:.0f}, {speed['sympy_per_second_per_core']:.0f}",
            "`make bench-sandbox`",
        ],
        [
            "a step after 16 others, from its parent's snapshot against re-execution",
            f"{speed['snapshot_speedup_depth16']:.2f} times as fast, "
            f"{speed['snapshot_speedup_depth16_algebra_last']:.1f} for a dear step",
            "`make bench-sandbox`",
        ],
        [
            f"{soak['minutes']} minutes of random programs, floods and kills: wrong results, leaks",
            f"{soak['wrong_results']}, {leaked}",
            "`make soak`",
        ],
    ]


_SPEED = ("sandbox-speed",)
TABLES = {
    "sandbox-speed": Table(_SPEED, speed),
    "sandbox-memory": Table(_SPEED, memory, Below.NOTHING),
    "sandbox-trees": Table(_SPEED, whole_trees, Below.NOTHING),
    "sandbox-callers": Table(_SPEED, callers, Below.NOTHING),
    "attack": Table(("attack",), attacks),
    "soak": Table(("soak",), soak),
    "readme-sandbox": Table(("sandbox-speed", "attack", "soak"), summary, Below.NOTHING),
}

"""Start-up, and the containers."""

from benchmarks.tables.documents import Below, Results, Rows, Table


def start_up(results: Results) -> Rows:
    """Seconds of the demonstration."""
    found = results["start-up"].figures
    weights = f"weights ({found['weights_mb']} MB fetched and converted)"
    return [
        ["run", "seconds"],
        [
            f"first: environment, {weights}, stack, one problem verified, stack down",
            str(found["first_seconds"]),
        ],
        ["second", str(found["second_seconds"])],
    ]


def compose(results: Results) -> Rows:
    """Both versions of Compose."""
    runs = [results["compose"].figures, results["compose-v1"].figures]

    def line(what: str, *cells: str) -> list[str]:
        return [what, *cells]

    def held(name: str) -> list[str]:
        return ["yes" if run[name] else "**no**" for run in runs]

    rows = [["", "Compose 2.26.1", "docker-compose 1.29.2"]]
    rows.append(
        line("all containers healthy, seconds after `up`", *(f"{run['up_seconds']:.1f}" for run in runs))
    )
    for name, what in (
        ("solved", "a problem solved"),
        ("round_promoted", "a round run to its promotion"),
        ("recovered_after_kill", "no search failed when a worker and the sandbox were killed (16 searches)"),
        ("recovered_after_restart", "no search failed when Postgres and Redis were restarted (16 searches)"),
        ("state_kept", "state kept after a restart"),
    ):
        rows.append(line(what, *held(name)))
    for workers in ("1", "4"):
        rates = (f"{run['searches_per_second'][workers]:.3f}" for run in runs)
        rows.append(line(f"searches per second, {workers} worker{'s' if workers != '1' else ''}", *rates))
    rows.append(line("4 workers against 1", *(f"{run['worker_scaling_1_to_4']:.2f} times" for run in runs)))
    attacks = runs[0]["attacks"]
    rows.append(
        line("attacks on the sandbox contained", f"{attacks['contained']} of {attacks['attacks']}", "not run")
    )
    rows.append(line("seconds in all", *(f"{run['seconds']:.1f}" for run in runs)))
    return rows


def images(results: Results) -> Rows:
    """Sizes of the images."""
    found = results["compose"].figures["image_mb"]
    return [["image", *found], ["MB", *(f"{size:,}" for size in found.values())]]


def memory(results: Results) -> Rows:
    """Memory of idle containers."""
    found = results["compose-memory"].figures["memory_mb"]
    return [["container", *found], ["MB", *(str(size) for size in found.values())]]


def real_model(results: Results) -> Rows:
    """`small` in the containers."""
    found = results["compose-small"].figures
    return [
        ["with `small` on vLLM", "figure"],
        ["policy healthy", f"after {found['policy_healthy_seconds']} s"],
        ["memory of the policy", f"{found['policy_memory_gb']} GB"],
        [f"the README's problem, verified by {found['level']}", f"{found['solve_seconds']} s"],
    ]


def summary(results: Results) -> Rows:
    """For the README."""
    found = results["compose"].figures
    attacks = found["attacks"]
    reached = ", ".join(found["sandbox_reaches"]) or "nothing"
    return [
        ["what", "figure"],
        ["all eight containers healthy", f"{found['up_seconds']:.0f} s after `up`"],
        [
            "attacks on the sandbox in its container, contained",
            f"{attacks['contained']} of {attacks['attacks']} (`{found['sandbox_isolation']}`)",
        ],
        [
            "what the sandbox's container reaches of all other containers, the host, the metadata address, the internet",
            f"{reached} (control: a worker reaches Postgres, Redis, policy, PRM)",
        ],
        [
            "no search failed when a worker and the sandbox were killed, and when Postgres and Redis were restarted",
            "yes, yes (16 searches each)"
            if found["recovered_after_kill"] and found["recovered_after_restart"]
            else "**no**",
        ],
        [
            "searches per second, 4 workers against 1, engines of fixed latency",
            f"{found['worker_scaling_1_to_4']:.2f} times",
        ],
    ]


TABLES = {
    "start-up": Table(("start-up",), start_up),
    "compose": Table(("compose", "compose-v1"), compose),
    "compose-images": Table(("compose",), images, Below.NOTHING),
    "compose-memory": Table(("compose-memory",), memory),
    "compose-small": Table(("compose-small",), real_model),
    "readme-compose": Table(("compose",), summary, Below.COMMANDS),
}

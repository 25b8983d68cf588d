"""`python -m tests.compose`: docker-compose.yml, brought up for real and treated badly. The last line is a JSON object.

Needs a Docker engine, or root and docker.io to start one. Everything it makes is in a project of its own and removed at the
end; `--keep` leaves it running.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from ratchet.stack.ports import free_ports
from tests.compose.engine import Engine, EngineError, base_images, compose_commands, engine, run, torch_index

ROOT = Path(__file__).parents[2]
PROJECT = "ratchet-test"
FILES = ("docker-compose.yml",)
PROBLEM, ANSWER = "There are 8 pens in a box. How many pens are in 27 boxes?", "216"
"""One of nano's held-out problems: it knows no others."""
IMAGES = ("search", "sandbox", "policy", "prm", "trainer")
ROUND = {
    "train": {"spec": "nano:train", "count": 60},
    "development": {"spec": "nano:development", "count": 60},
    "held_out": {"spec": "nano:held_out", "count": 60},
    "label": {
        "rollouts": 8,
        "max_tokens": 200,
        "batch_rollouts": True,
        "temperature": 1.0,
        "exploration": 1.0,
    },
    "policy": {"epochs": 3, "lr": 5e-4, "batch_tokens": 1024, "micro_tokens": 1024, "max_length": 256},
    "prm": {
        "epochs": 1,
        "lr": 7e-4,
        "batch_tokens": 1024,
        "micro_tokens": 1024,
        "max_length": 256,
        "value_weight": 1.0,
    },
    "evaluation": {
        "tokens": 200,
        "max_tokens": 200,
        "batch_rollouts": True,
        "samples": 2,
        "system": False,
    },
}
SCALING_SEARCHES = 48
SCALING_CONCURRENCY = 4
SCALING_ROLLOUTS = 8


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def settings(name: str) -> str:
    """A default of the compose file, like `${POSTGRES_IMAGE:-postgres:17}`."""
    found = re.search(r"\$\{" + name + r":?-([^}]*)\}", (ROOT / "docker-compose.yml").read_text())
    assert found is not None, name
    return found.group(1)


class Stack:
    """The compose project, and the APIs that it publishes."""

    def __init__(
        self, engine: Engine, command: Sequence[str], files: Sequence[str], env: dict[str, str]
    ) -> None:
        self.engine = engine
        self._command = list(command)
        self._files = list(files)
        self.env = {**engine.env, **env}
        self.search = httpx.Client(base_url=f"http://127.0.0.1:{env['SEARCH_PORT']}", timeout=120)
        self.trainer = httpx.Client(base_url=f"http://127.0.0.1:{env['TRAINER_PORT']}", timeout=60)

    def take_key(self) -> None:
        """Send the operator's key, as docs/how-to/deploy.md says, from now on."""
        line = self.compose("exec", "-T", "search", "cat", "/run/ratchet-secrets/admin_header")
        name, _, value = line.strip().partition(": ")
        for client in (self.search, self.trainer):
            client.headers[name] = value

    def compose(self, *arguments: str, files: Sequence[str] = (), seconds: float = 900) -> str:
        """Run compose in the repository's root. Raises EngineError."""
        named = [part for file in (*self._files, *files) for part in ("--file", file)]
        return run(
            *self._command, "--project-name", PROJECT, *named, *arguments, seconds=seconds, env=self.env
        )

    def containers(self, service: str) -> list[str]:
        """Ids of the service's running containers."""
        return self.engine.docker(
            "ps", "--quiet",
            "--filter", f"label=com.docker.compose.project={PROJECT}",
            "--filter", f"label=com.docker.compose.service={service}",
        ).split()  # fmt: skip

    def wait_healthy(self, *services: str, seconds: float = 300) -> None:
        """Until every container of these services is healthy. Raises EngineError."""
        states: dict[str, str] = {}
        for _ in wait(seconds):
            for service in services:
                ids = self.containers(service)
                text = [
                    self.engine.docker("inspect", "--format", "{{.State.Health.Status}}", id_).strip()
                    for id_ in ids
                ]
                states[service] = ",".join(text) or "none"
            if all(set(state.split(",")) == {"healthy"} for state in states.values()):
                return
        logs = self.compose("logs", "--tail", "30", *(s for s, state in states.items() if state != "healthy"))
        raise EngineError(f"not healthy: {states}\n{logs[-6000:]}")

    def kill(self, service: str) -> None:
        """End the service's first container as a crash would: by its process, so that its restart policy holds."""
        state = self.engine.inspect(self.containers(service)[0])["State"]
        assert isinstance(state, dict)
        pid = int(state["Pid"])
        # 0 is our own process group.
        if pid <= 1:
            raise EngineError(f"{service} has no process")
        os.kill(pid, signal.SIGKILL)

    def inside(self, service: str, code: str) -> str:
        """What Python code prints in the service's first container."""
        return self.engine.docker(
            "exec", "-i", self.containers(service)[0], "python", "-", stdin=code, seconds=120
        )


def wait(seconds: float, pause: float = 1.0) -> Iterator[None]:
    """Turns until the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(pause)


def begin(stack: Stack, count: int, **body: Any) -> list[str]:
    """Begin searches; their ids."""

    def one(seed: int) -> str:
        request = {"problem": PROBLEM, "seed": seed, **body}
        for _ in wait(60):
            with contextlib.suppress(httpx.TransportError):
                response = stack.search.post("/search", json=request)
                if response.status_code in (200, 202):
                    return str(response.json()["id"])
                if response.status_code < 500:
                    raise EngineError(f"POST /search: {response.status_code} {response.text[:500]}")
        raise EngineError("POST /search: no answer")

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(count)))


def ends(stack: Stack, ids: Sequence[str], seconds: float) -> list[str]:
    """The states in which the searches ended. Raises EngineError for those that did not."""
    states: dict[str, str] = {}
    for _ in wait(seconds, 0.5):
        for id_ in ids:
            if id_ in states:
                continue
            with contextlib.suppress(httpx.TransportError):
                response = stack.search.get(f"/search/{id_}")
                if response.status_code == 200 and response.json().get("ended_at"):
                    states[id_] = response.json()["state"]
        if len(states) == len(ids):
            return [states[id_] for id_ in ids]
    raise EngineError(f"{len(ids) - len(states)} of {len(ids)} searches did not end")


def answered(states: Sequence[str]) -> int:
    """How many ended with an answer: a search that failed, or spent its budget on nothing, did not."""
    return sum(state in ("solved_verified", "answered_unverified") for state in states)


def solve(stack: Stack) -> dict[str, Any]:
    """One problem, followed by its events. The `end` event's result."""
    id_ = begin(stack, 1, strategy="mcts", reference_answer=ANSWER, budget={"tokens": 4000})[0]
    kinds: dict[str, int] = {}
    kind = ""
    with stack.search.stream("GET", f"/search/{id_}/events") as response:
        for line in response.iter_lines():
            if line.startswith("event:"):
                kind = line.partition(":")[2].strip()
                kinds[kind] = kinds.get(kind, 0) + 1
            elif line.startswith("data:") and kind == "end":
                result: dict[str, Any] = json.loads(line.partition(":")[2])
                return {"state": result["state"], "answer": result["answer"], "events": kinds, "id": id_}
    raise EngineError(f"the events of {id_} ended without an end: {kinds}")


REACH = """
import json, socket, sys
reached = {}
for name, host, port in json.loads(%r):
    try:
        socket.create_connection((host, port), 3).close()
        reached[name] = True
    except OSError as error:
        reached[name] = False
print(json.dumps(reached))
"""


def isolation(stack: Stack) -> dict[str, Any]:
    """What the sandbox's container reaches, and what a search worker does, which proves that there is something to reach."""
    targets: list[tuple[str, str, int]] = [("metadata", "169.254.169.254", 80), ("internet", "1.1.1.1", 443)]
    ports = {"postgres": 5432, "redis": 6379, "policy": 8000, "prm": 8000, "search": 8000, "trainer": 8000}
    for service, port in ports.items():
        known = stack.engine.inspect(stack.containers(service)[0])["NetworkSettings"]
        assert isinstance(known, dict)
        for network, seen in known["Networks"].items():
            targets.append((f"{service} on {network}", seen["IPAddress"], port))
            if seen["Gateway"]:
                targets.append((f"host on {network}", seen["Gateway"], int(stack.env["SEARCH_PORT"])))
        targets.append((service, service, port))
    code = REACH % json.dumps(targets)
    sandbox = json.loads(stack.inside("sandbox", code))
    worker = json.loads(stack.inside("search-worker", code))
    needed = {"postgres", "redis", "policy", "prm"}
    return {
        "sandbox_reaches": sorted(name for name, reached in sandbox.items() if reached),
        "controls": all(worker[name] for name in needed),
        "tried": len(targets),
    }


def sandbox_socket(stack: Stack) -> str:
    """The sandbox's address, as this host sees it: the socket lies in a volume."""
    folder = stack.engine.docker(
        "volume", "inspect", "--format", "{{.Mountpoint}}", f"{PROJECT}_sandbox-socket"
    ).strip()
    return f"unix://{folder}/sandbox.sock"


def attack(stack: Stack) -> dict[str, Any]:
    """The attack suite, against the sandbox as compose runs it."""
    url = sandbox_socket(stack)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.attack", "--url", url, "--no-controls"],
        cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    try:
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise EngineError(f"the attacks did not run: {done.stderr[-2000:]}") from error
    if done.returncode != 0:
        say(done.stderr[-4000:])
    return result


def container_backend(stack: Stack, folder: Path) -> bool:
    """Whether the sandbox that one starts without compose runs code in a container, and takes it along when it is stopped."""
    path = folder / "own-sandbox" / "sandbox.sock"
    env = {
        **stack.env,
        "RATCHET_SOCKET": str(path),
        "RATCHET_SANDBOX_IMAGE": f"ratchet-sandbox:{stack.env['RATCHET_VERSION']}",
    }
    process = subprocess.Popen([sys.executable, "-m", "services.sandbox.container"], cwd=ROOT, env=env)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://sandbox") as http:
            for _ in wait(60):
                with contextlib.suppress(httpx.TransportError):
                    if http.get("/health").status_code == 200:
                        break
            answer = http.post("/run_code", json={"code": "import sympy\nprint(sympy.factorint(360))"}).json()
            isolation = http.get("/health").json()["detail"]["isolation"]
    finally:
        process.terminate()
        code = process.wait(60)
    left = stack.engine.docker("ps", "--quiet", "--filter", "label=ratchet.sandbox").split()
    say(
        f"container backend: {isolation}, {answer['run_result']['stdout'].strip()}, exit status {code}, {len(left)} left"
    )
    return answer["run_result"]["stdout"].startswith("{2: 3") and isolation == "namespaces" and not left


def train(stack: Stack) -> dict[str, Any]:
    """A round on nano, to its end; what serves then."""
    response = stack.trainer.post("/rounds", json={"run": "compose", "config": ROUND})
    if response.status_code != 201:
        raise EngineError(f"POST /rounds: {response.status_code} {response.text[:1000]}")
    id_ = response.json()["id"]
    state = ""
    for _ in wait(1500, 2.0):
        view = stack.trainer.get(f"/rounds/{id_}").json()
        if view["state"] != state:
            state = view["state"]
            say(f"round: {state}")
        if state in ("promoted", "rejected", "failed", "cancelled"):
            return {"state": state, "reason": view.get("reason"), "metrics": view.get("metrics", {})}
    raise EngineError(f"the round did not end; it is {state}")


SERVING = """
import json, os, pathlib, urllib.request
token = pathlib.Path(os.environ["RATCHET_SERVICE_TOKEN_FILE"]).read_text().strip()
request = urllib.request.Request("http://policy:8000/models", headers={"authorization": f"Bearer {token}"})
print(json.load(urllib.request.urlopen(request))["models"][0]["version"])
"""


def serving(stack: Stack) -> str:
    """Version of the policy that answers, as the policy itself says."""
    return stack.inside("search-worker", SERVING).strip()


def survives(stack: Stack, name: str, harm: Callable[[], None]) -> bool:
    """Whether searches that are under way while harm is done still end, each with an answer."""
    ids = begin(
        stack, 16, strategy="majority", parameters={"rollouts": 24, "in_flight": 1}, budget={"tokens": 6000}
    )
    time.sleep(2.0)
    harm()
    states = ends(stack, ids, 240)
    say(f"{name}: {answered(states)} of {len(states)} searches found an answer")
    return answered(states) == len(states)


def throughput(stack: Stack, workers: int) -> float:
    """Searches per second with so many workers, on engines of fixed latency."""
    stack.env["WORKER_CONCURRENCY"] = str(SCALING_CONCURRENCY)
    stack.compose(
        "up", "--detach", "--no-build", "--scale", f"search-worker={workers}",
        "sandbox", "policy", "prm", "search", "search-worker",
        files=["tests/compose/fixed-latency.yml"],
    )  # fmt: skip
    stack.wait_healthy("policy", "prm", "sandbox", "search-worker")
    assert len(stack.containers("search-worker")) == workers
    began = time.monotonic()
    ids = begin(
        stack, SCALING_SEARCHES, strategy="majority",
        parameters={"rollouts": SCALING_ROLLOUTS, "in_flight": 1}, budget={"tokens": 100_000, "seconds": 600},
    )  # fmt: skip
    states = ends(stack, ids, 600)
    if answered(states) < len(states):
        raise EngineError(f"{len(states) - answered(states)} searches found no answer with {workers} workers")
    return SCALING_SEARCHES / (time.monotonic() - began)


def exercise(stack: Stack, report: dict[str, Any], *, attacks: bool) -> None:
    """Everything, in order; fills the report."""
    began = time.monotonic()
    say("build")
    with contextlib.ExitStack() as builds:
        if not stack.engine.has_bridge and "TORCH_INDEX" not in stack.env:
            version = re.search(r'"torch==([^"]+)"', (ROOT / "pyproject.toml").read_text())
            assert version is not None
            stack.env["TORCH_INDEX"] = builds.enter_context(
                torch_index(stack.engine.folder, version.group(1))
            )
        stack.compose("build", seconds=3600)
    report["build_seconds"] = round(time.monotonic() - began, 1)
    tag = stack.env["RATCHET_VERSION"]
    base = _megabytes(stack.engine, settings("PYTHON_IMAGE"))
    report["image_mb"] = {name: _megabytes(stack.engine, f"ratchet-{name}:{tag}") for name in IMAGES} | {
        "base": base
    }

    say("up")
    began = time.monotonic()
    everything = ("postgres", "redis", "sandbox", "policy", "prm", "search", "search-worker", "trainer")
    stack.compose("up", "--detach", "--no-build")
    stack.wait_healthy(*everything)
    report["up"] = True
    refused = [
        client.get(path).status_code
        for client, path in ((stack.search, "/searches"), (stack.trainer, "/rounds"))
    ]
    report["closed_without_key"] = refused == [401, 401]
    stack.take_key()
    report["up_seconds"] = round(time.monotonic() - began, 1)

    say("isolation")
    seen = isolation(stack)
    report["sandbox_reaches"] = seen["sandbox_reaches"]
    report["isolation_tried"] = seen["tried"]
    report["isolation_controls"] = seen["controls"]
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=sandbox_socket(stack).removeprefix("unix://"))
    ) as http:
        health = http.get("http://sandbox/health").json()["detail"]
    report["sandbox_isolation"] = health["isolation"]
    report["sandbox_layers"] = health["layers"]
    if attacks:
        say("attacks")
        report["attacks"] = attack(stack)

    say("the sandbox in a container without compose")
    report["container_backend"] = container_backend(stack, stack.engine.folder)

    say("solve")
    solved = solve(stack)
    report["solved"] = solved["state"] == "solved_verified"
    report["solve"] = solved

    say("a round")
    before = serving(stack)
    outcome = train(stack)
    report["round"] = outcome["state"]
    after = serving(stack)
    report["round_promoted"] = outcome["state"] == "promoted" and after != before

    say("kills")

    def crash() -> None:
        stack.kill("search-worker")
        stack.kill("sandbox")

    def restart() -> None:
        stack.compose("restart", "postgres", "redis")

    report["recovered_after_kill"] = survives(stack, "worker and sandbox killed", crash)
    stack.wait_healthy("search-worker", "sandbox")
    report["recovered_after_restart"] = survives(stack, "Postgres and Redis restarted", restart)

    say("down and up")
    stack.compose("down")
    stack.compose("up", "--detach", "--no-build")
    stack.wait_healthy(*everything)
    again = stack.search.get(f"/search/{solved['id']}")
    kept = again.status_code == 200 and again.json()["answer"] == solved["answer"]
    for _ in wait(60):
        if serving(stack) == after:
            break
    report["state_kept"] = kept and serving(stack) == after

    say("scaling")
    stack.compose("stop", "trainer")
    one = throughput(stack, 1)
    four = throughput(stack, 4)
    report["searches_per_second"] = {"1": round(one, 3), "4": round(four, 3)}
    report["worker_scaling_1_to_4"] = round(four / one, 2)


def _megabytes(engine: Engine, image: str) -> int:
    return round(int(engine.docker("image", "inspect", "--format", "{{.Size}}", image)) / 1e6)


def good(report: dict[str, Any]) -> bool:
    """Whether everything is as it should be."""
    flags = (
        "up",
        "closed_without_key",
        "solved",
        "round_promoted",
        "recovered_after_kill",
        "recovered_after_restart",
        "state_kept",
        "container_backend",
    )
    contained = report.get("attacks", {"attacks": 0, "contained": 0})
    return (
        all(report.get(flag) for flag in flags)
        and not report["sandbox_reaches"]
        and report["isolation_controls"]
        and contained["attacks"] == contained["contained"]
        and report["worker_scaling_1_to_4"] >= 3
    )


Folder = Annotated[Path, typer.Option(help="Where an engine that is started here keeps its data.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the project up.")]
Attacks = Annotated[bool, typer.Option("--attacks/--no-attacks", help="Run the attack suite too.")]


def main(
    folder: Folder = Path("/var/tmp/ratchet-compose"), keep: Keep = False, attacks: Attacks = True
) -> None:
    """Bring docker-compose.yml up and treat it badly."""
    began = time.monotonic()
    report: dict[str, Any] = {"up": False}
    failure = None
    try:
        with engine(folder) as found:
            commands = compose_commands()
            if not commands:
                raise EngineError("Neither `docker compose` nor docker-compose is there.")
            images = {part: settings(f"{part.upper()}_IMAGE") for part in ("python", "postgres", "redis")}
            report["base_images"] = base_images(found, folder, images)
            files = [*FILES, *(["tests/compose/host-network-build.yml"] if not found.has_bridge else [])]
            search, trainer = free_ports(2)
            env = {
                "RATCHET_VERSION": "test",
                "SEARCH_PORT": str(search),
                "TRAINER_PORT": str(trainer),
                "MODEL": "nano",
            }
            report["compose"] = []
            for command in commands:
                Stack(found, command, files, env).compose("config")
                report["compose"].append(run(*command, "version", "--short").strip())
            stack = Stack(found, commands[0], files, env)
            try:
                exercise(stack, report, attacks=attacks)
            except (EngineError, httpx.HTTPError, AssertionError) as error:
                failure = f"{type(error).__name__}: {error}"
                with contextlib.suppress(EngineError):
                    say(stack.compose("logs", "--tail", "40")[-12000:])
            finally:
                if not keep:
                    stack.compose("down", "--volumes")
                else:
                    say("up until Enter is pressed")
                    sys.stdin.readline()
    except EngineError as error:
        failure = str(error)
    report["seconds"] = round(time.monotonic() - began, 1)
    if failure:
        print(f"ratchet: {failure}", file=sys.stderr)
    print(json.dumps(report))
    raise typer.Exit(0 if failure is None and good(report) else 1)


if __name__ == "__main__":
    typer.run(main)

"""The commands as processes: what they print, how they end. The services are doubles behind real HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from fastapi import Request, Response

from ratchet import __version__
from ratchet.contracts.search import SearchRequest, SearchResult
from ratchet.stack.config import StackUrls
from ratchet.stack.data_folder import running_stack
from tests.cli_process import ENVIRONMENT, ratchet
from tests.http_double import serving
from tests.integration.search_double import MODEL, PRM, Searches, result, search_double

Double = tuple[str, Searches]

RATCHET = [sys.executable, "-m", "ratchet.cli.main"]


@pytest.fixture
def double() -> Iterator[Double]:
    with serving() as serve:
        app, searches = search_double()
        yield serve(app), searches


@pytest.mark.parametrize(("problem", "code"), [("say 42", 0), ("guess 42", 1), ("fail", 3)])
def test_solve_ends_with_what_became_of_the_problem(double: Double, problem: str, code: int) -> None:
    done = ratchet("solve", problem, "--url", double[0], "--json")
    assert done.returncode == code
    found = SearchResult.model_validate_json(done.stdout)
    assert found.problem == problem


def test_solve_shows_steps_answer_program_verification_and_cost(double: Double) -> None:
    done = ratchet("solve", "say 42", "--url", double[0])
    assert done.returncode == 0
    for words in ("Thought 1.  → 1", "✗ Thought 2.  NameError: y", "42", "print(42)", "by agreement: 2 programs",
                  "0.90", "policy", "120", MODEL):  # fmt: skip
        assert words in done.stdout


def test_solve_sends_what_the_options_say(double: Double) -> None:
    url, searches = double
    options = [
        "--strategy",
        "best_of_n",
        "--rollouts",
        "3",
        "--tokens",
        "99",
        "--seconds",
        "5",
        "--seed",
        "7",
        "--answer",
        "42",
        "--json",
    ]
    assert ratchet("solve", "-", "--url", url, *options, stdin=b"say 42\n").returncode == 0
    (asked,) = searches.requests
    assert (asked.problem, asked.strategy.value, asked.parameters.rollouts) == ("say 42\n", "best_of_n", 3)
    assert (asked.budget.tokens, asked.budget.seconds, asked.seed, asked.reference_answer) == (99, 5, 7, "42")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["solve", ""], "PROBLEM"),
        (["solve", "x" * 30_000], "PROBLEM"),
        (["solve", "say 1", "--tokens", "-5"], "--tokens"),
        (["solve", "say 1", "--min-confidence", "1.5"], "--min-confidence"),
        (["solve", "say 1", "--rollouts", "0"], "--rollouts"),
        (["solve", "say 1", "--strategy", "magic"], "--strategy"),
        (["solve", "say 1", "--url", "nonsense"], "no http:// or https:// address"),
        (["solve", "say 1", "--url", "http://127.0.0.1:9", "--model", "small"], "--model"),
        (["solve", "say 1", "--proof", "/nowhere/p.json"], "--proof"),
        (["eval", "/nowhere.jsonl"], "No such file"),
        (["eval", "/nowhere.jsonl", "--limit", "0"], "--limit"),
        (["eval", "/nowhere.jsonl", "--tokens", "many"], "--tokens"),
        (["eval", "/nowhere.jsonl", "--tokens", "300,600"], "--compare"),
        (["eval", "/nowhere.jsonl", "--seeds", "0,1"], "--compare"),
        (["eval", "/nowhere.jsonl", "--baseline", "mcts"], "--compare"),
        (["eval", "/nowhere.jsonl", "--set", "gate"], "name=value"),
        (["eval", "/nowhere.jsonl", "--set", "rollouts=3"], "--rollouts"),
        (["eval", "nano:held_out?count=2", "--set", "magic=1"], "magic"),
        (["eval", "nano:held_out?count=2", "--set", "gate=7"], "--set"),
        (["eval", "/nowhere.jsonl", "--keep"], "--compare"),
        (["eval", "/nowhere.jsonl", "--compare", "mcts", "--keep", "--url", "http://127.0.0.1:9"], "--keep"),
        (["eval", "/nowhere.jsonl", "--compare", "mcts,auto", "--keep"], "--keep"),
        (["eval", "/nowhere.jsonl", "--compare", "mcts,magic"], "'magic' is no strategy"),
        (["eval", "/nowhere.jsonl", "--compare", ""], "no strategy"),
        (["eval", "/nowhere.jsonl", "--compare", "mcts,mcts"], "twice"),
        (["eval", "/nowhere.jsonl", "--compare", "mcts", "--strategy", "mcts"], "--strategy"),
        (["eval", "/nowhere.jsonl", "--compare", "mcts", "--tokens", "300,1.5"], "--tokens"),
        (["eval", "/nowhere.jsonl", "--compare", "mcts", "--tokens", "300,0"], "--tokens"),
        (["eval", "/nowhere.jsonl", "--compare", "mcts", "--seeds", "-1"], "--seeds"),
        (["eval", "/nowhere.jsonl", "--compare", "mcts", "--baseline", "majority"], "--baseline"),
        (["verify", "/nowhere.json"], "No such file"),
    ],
)
def test_wrong_use_is_said_and_exits_2(arguments: list[str], words: str) -> None:
    done = ratchet(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert not done.stdout


def test_it_says_which_version_it_is() -> None:
    done = subprocess.run(
        [*RATCHET, "--version"], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"ratchet {__version__}\n"


def test_stdin_that_is_no_text_is_wrong_use() -> None:
    done = ratchet("solve", "-", stdin=b"\xff\xfe\x00")
    assert (done.returncode, "not UTF-8" in done.stderr) == (2, True)


def test_an_interrupt_cancels_the_search_and_shows_the_best_so_far(double: Double) -> None:
    url, searches = double
    process = subprocess.Popen(
        [*RATCHET, "solve", "endless", "--url", url, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stderr is not None
    while b"Thought 1" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=20)
    assert (process.returncode, searches.cancelled) == (1, [0])
    assert SearchResult.model_validate_json(out).answer == "7"
    assert b"Traceback" not in error


def test_a_service_that_is_not_there_is_said_at_once() -> None:
    began = time.monotonic()
    done = ratchet("solve", "say 1", "--url", "http://127.0.0.1:9", "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot be reached" in done.stderr
    assert "ratchet up" in done.stderr
    assert time.monotonic() - began < 20


def test_retries_do_not_write_to_stdout() -> None:
    app, refused = search_double()[0], 0

    @app.middleware("http")
    async def refuse_once(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        nonlocal refused
        if request.method == "POST" and not refused:
            refused += 1
            return Response(status_code=503)
        return await call_next(request)

    with serving() as serve:
        done = ratchet("solve", "say 1", "--url", serve(app), "--json")
    assert (done.returncode, refused) == (0, 1)
    assert SearchResult.model_validate_json(done.stdout).answer == "1"


# --- eval


@pytest.fixture
def stack(double: Double, tmp_path: Path) -> tuple[Path, Searches]:
    """A data folder whose running stack is the double, in this process."""
    url, searches = double
    data = tmp_path / "data"
    data.mkdir()
    urls = StackUrls(
        search=url, policy=url, prm=url, sandbox=url, trainer=url, database="", redis="", key="k", token="t"
    )
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    entry = {"pid": os.getpid(), "start_ticks": ticks, "urls": asdict(urls)}
    (data / "stack.json").write_text(json.dumps(entry))
    assert running_stack(data) == urls
    return data, searches


PROBLEMS = [("say 1", "1"), ("say 2", "3"), ("guess 4", "4"), ("fail", "5"), ("say 6", "6")]


def problem_file(tmp_path: Path) -> Path:
    path = tmp_path / "five.jsonl"
    path.write_text(
        "".join(json.dumps({"problem": text, "answer": answer}) + "\n" for text, answer in PROBLEMS)
    )
    return path


def test_eval_grades_counts_and_resumes(stack: tuple[Path, Searches], tmp_path: Path) -> None:
    data, searches = stack
    command = ["eval", str(problem_file(tmp_path)), "--data", str(data), "--tokens", "500", "--seed", "3"]
    first = ratchet(*command, "--limit", "2", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert len(searches.requests) == 2
    assert all(asked.reference_answer is None for asked in searches.requests)
    assert all(not asked.parameters.early_stop and asked.budget.tokens == 500 for asked in searches.requests)
    (results,) = (tmp_path / "results").iterdir()
    assert results.name.startswith(f"five-mcts-{MODEL}-s3-")
    # A run that was killed while it wrote leaves half a line behind.
    with results.open("a") as file:
        file.write('{"id": "half')

    whole = ratchet(*command, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert sorted(asked.problem for asked in searches.requests) == sorted(text for text, _ in PROBLEMS)
    facts = json.loads(whole.stdout.splitlines()[-1])
    assert (facts["n"], facts["accuracy"], facts["failed"], facts["answered"]) == (5, 0.6, 1, 4)
    assert (facts["strategy"], facts["model"], facts["seed"], facts["data"]) == (
        "mcts",
        MODEL,
        3,
        "five.jsonl",
    )
    assert facts["solved_by_level"]["agreement"] == {"n": 3, "right": 2}
    assert facts["solved_by_level"]["execution"] == {"n": 1, "right": 1}
    assert (facts["coverage"], facts["lost_by_vote"], facts["right_trajectories"]) == (0.6, 0.0, 0.75)
    assert (facts["tokens_per_problem"], facts["seconds_per_problem"]) == (120.0, 2.0)
    assert facts["calibration"]["brier"] == pytest.approx((3 * 0.01 + 0.81) / 4)
    assert facts["ci95"][0] < 0.6 < facts["ci95"][1]

    again = ratchet(*command, cwd=tmp_path)
    assert len(searches.requests) == 5
    assert again.stdout == whole.stdout
    assert len(results.read_text().splitlines()) == 5

    fresh = ratchet(*command, "--fresh", "--reference", cwd=tmp_path)
    assert fresh.returncode == 0
    assert {asked.reference_answer for asked in searches.requests[5:]} == {answer for _, answer in PROBLEMS}


def test_eval_compares_strategies_at_budgets_and_goes_on_from_single_runs(
    stack: tuple[Path, Searches], tmp_path: Path
) -> None:
    data, searches = stack
    path = tmp_path / "four.jsonl"
    problems = [("say 1", "1"), ("say 2", "3"), ("lose 5", "5"), ("fail", "6")]
    path.write_text("".join(json.dumps({"problem": a, "answer": b}) + "\n" for a, b in problems))
    single = ratchet("eval", str(path), "--data", str(data), "--strategy", "mcts", "--tokens", "300",
                     "--rollouts", "4096", cwd=tmp_path)  # fmt: skip
    assert single.returncode == 0, single.stderr
    assert json.loads(single.stdout)["coverage"] == 0.5

    command = ["eval", str(path), "--data", str(data), "--compare", "greedy,best_of_n,mcts",
               "--tokens", "600,300", "--seeds", "0,7"]  # fmt: skip
    done = ratchet(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    arms = [(arm["strategy"], arm["tokens"], arm["n"], arm["seeds"]) for arm in facts["arms"]]
    assert arms == [
        ("greedy", 600, 4, 1),
        ("best_of_n", 300, 4, 2),
        ("mcts", 300, 4, 2),
        ("best_of_n", 600, 4, 2),
        ("mcts", 600, 4, 2),
    ]
    assert {
        (arm["accuracy"], arm["coverage"], arm["lost_by_vote"], arm["failed"]) for arm in facts["arms"][1:]
    } == {(0.25, 0.5, 0.25, 2)}
    assert (facts["baseline"], facts["seeds"], facts["n"]) == ("best_of_n", [0, 7], 4)
    assert {(pair["strategy"], pair["difference"], pair["p"]) for pair in facts["comparisons"]} == {
        ("greedy", 0.0, 1.0),
        ("mcts", 0.0, 1.0),
    }
    # What the single run had found was not searched again: 9 results of 4 problems, none of them twice.
    asked = [(each.problem, each.strategy, each.budget.tokens, each.seed) for each in searches.requests]
    assert (len(asked), len(set(asked))) == (36, 36)
    assert not any(each.parameters.early_stop or each.reference_answer for each in searches.requests)
    (kept,) = (tmp_path / "results").glob("*-compared-*.json")
    assert json.loads(kept.read_text()) == facts
    for plot in facts["plots"]:
        assert (tmp_path / plot).stat().st_size > 1000
    assert "more than best_of_n, problem by problem" in done.stderr

    again = ratchet(*command, cwd=tmp_path)
    assert (again.stdout, len(searches.requests)) == (done.stdout, 36)
    assert not searches.choices
    more = ratchet(*command, "--baseline", "greedy", "--keep", "--output", "new/of.json", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    [kept_choice] = searches.choices
    # All are right equally often, and of equals the first counts.
    assert (kept_choice.policy, kept_choice.prm, kept_choice.strategy) == (MODEL, PRM, "greedy")
    assert (kept_choice.n, kept_choice.tokens, kept_choice.accuracy) == (4, [600], 0.25)
    assert kept_choice.compared == ["greedy", "best_of_n", "mcts"]
    assert json.loads((tmp_path / "new" / "of.json").read_text())["baseline"] == "greedy"
    assert (tmp_path / "new" / "of.svg").exists()


def test_eval_that_is_interrupted_cancels_its_searches_and_says_how_to_go_on(
    stack: tuple[Path, Searches], tmp_path: Path
) -> None:
    data, searches = stack
    path = tmp_path / "p.jsonl"
    path.write_text(
        "".join(f'{{"problem": "endless {number}", "answer": {number}}}\n' for number in range(4))
    )
    process = subprocess.Popen(
        [*RATCHET, "eval", str(path), "--data", str(data), "--concurrency", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 30
    while len(searches.requests) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert sorted(searches.cancelled) == [0, 1]
    assert b"the same command goes on from there" in error
    assert b"Traceback" not in error


def test_eval_refuses_a_model_that_the_running_stack_does_not_serve(
    stack: tuple[Path, Searches], tmp_path: Path
) -> None:
    done = ratchet(
        "eval", str(problem_file(tmp_path)), "--data", str(stack[0]), "--model", "other", cwd=tmp_path
    )
    assert done.returncode == 2
    assert f"serves {MODEL}, not other" in done.stderr.replace("\n", " ").replace("  ", " ")


def test_eval_names_the_line_of_a_bad_problem(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"problem": "say 1", "answer": 1}\n{"problem": "say 2"}\n')
    done = ratchet("eval", str(path))
    assert done.returncode == 2
    assert "line 2" in done.stderr


def test_a_batch_goes_from_file_to_file_and_on_where_it_was_broken_off(
    double: Double, tmp_path: Path
) -> None:
    url, searches = double
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_text("".join(json.dumps({"problem": text}) + "\n" for text in ("say 1", "guess 2", "fail 3")))
    command = ["batch", str(file), "--out", str(out), "--url", url]
    done = ratchet(*command, "--tokens", "99", "--seed", "7", "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert {name: report[name] for name in ("total", "solved", "failed", "asked")} == {
        "total": 3, "solved": 1, "failed": 1, "asked": 3,
    }  # fmt: skip
    assert {(each.budget.tokens, each.seed) for each in searches.requests} == {(99, 7)}
    again = ratchet(*command, "--tokens", "99", "--seed", "7")
    assert "1 of 3 solved and verified, 1 failed" in again.stdout
    assert [each.problem for each in searches.requests[3:]] == ["fail 3"]
    other = ratchet(*command, "--seed", "8")
    assert (other.returncode, "choose another file" in other.stderr) == (2, True)
    file.write_text("{}\n")
    wrong = ratchet(*command)
    assert (wrong.returncode, "line 1: `problem` is missing" in wrong.stderr) == (2, True)


def test_a_failed_search_is_listed_shown_and_taken_up_again(double: Double) -> None:
    url, searches = double
    for problem in ("fail", "say [red]42"):
        searches.results.append(result(len(searches.results), SearchRequest(problem=problem)))
    listed = ratchet("searches", "list", "--url", url)
    assert listed.returncode == 0
    assert "s0" in listed.stdout
    assert "say [red]42" in listed.stdout
    failed = json.loads(ratchet("searches", "list", "--state", "failed", "--json", "--url", url).stdout)
    assert [each["id"] for each in failed["searches"]] == ["s0"]
    # The double looks at one search a page: what is found on the second is listed all the same.
    found = json.loads(ratchet("searches", "list", "--text", "RED", "--json", "--url", url).stdout)
    assert ([each["id"] for each in found["searches"]], found["next"]) == (["s1"], None)
    wrong = ratchet("searches", "list", "--model", "no version", "--url", url)
    assert (wrong.returncode, "--model" in wrong.stderr) == (2, True)
    assert "out of luck" in ratchet("searches", "show", "s0", "--url", url).stdout
    again = ratchet("searches", "retry", "s0", "--json", "--url", url)
    assert (again.returncode, json.loads(again.stdout)["state"]) == (0, "queued")
    refused = ratchet("searches", "retry", "s1", "--url", url)
    assert refused.returncode == 1
    assert "only a failed one" in refused.stderr
    more = ratchet("searches", "extend", "s1", "--tokens", "9000", "--json", "--url", url)
    assert (more.returncode, json.loads(more.stdout)["asked"]["budget"]["tokens"]) == (0, 9000)
    for options in ([], ["--tokens", "0"]):
        wrong = ratchet("searches", "extend", "s1", *options, "--url", url)
        assert (wrong.returncode, "--tokens" in wrong.stderr) == (2, True)
    cancelled = ratchet("searches", "cancel", "s0", "--json", "--url", url)
    assert (cancelled.returncode, json.loads(cancelled.stdout)["state"]) == (0, "cancelled")

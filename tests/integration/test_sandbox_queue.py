"""The queue before the sandbox over HTTP: who is refused, who is let by, and what a caller that goes away leaves behind."""

import concurrent.futures
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.sandbox_server import BEARER, Sandbox, busy_processes, running_sandbox


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A service with one worker, before which four requests may wait for a second."""
    log = tmp_path_factory.mktemp("narrow") / "log"
    with running_sandbox(log, workers="1", queue_size="4", queue_timeout="1") as running:
        yield running


def _ask(narrow: Sandbox, caller: str, seconds: float) -> httpx.Response:
    body = {"code": f"import time; time.sleep({seconds})"}
    return httpx.post(
        f"{narrow.http.base_url}/run_code",
        json=body,
        headers={"authorization": BEARER, "x-caller": caller},
        timeout=30,
    )


def test_a_full_queue_and_a_long_wait_are_refused_with_retry_after(narrow: Sandbox) -> None:
    with concurrent.futures.ThreadPoolExecutor(7) as threads:
        answers = list(threads.map(lambda number: _ask(narrow, f"caller {number}", 2), range(7)))
    assert sorted(answer.status_code for answer in answers) == [200] + [503] * 6
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all(answer.headers["retry-after"] >= "1" for answer in refused)
    details = {answer.json()["detail"] for answer in refused}
    assert len(details) == 2, details


def test_one_caller_fills_half_of_the_queue_and_another_is_let_by(narrow: Sandbox) -> None:
    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        many = [threads.submit(_ask, narrow, "many", 0.2) for _ in range(4)]
        time.sleep(0.1)
        few = threads.submit(_ask, narrow, "few", 0)
        # One runs, two wait, one is refused at once.
        assert 429 in [each.result().status_code for each in many]
        assert few.result().status_code == 200


def test_a_batch_runs_all_or_finds_no_room(narrow: Sandbox) -> None:
    def batch(count: int) -> httpx.Response:
        programs = [{"code": f"print({number})"} for number in range(count)]
        answer: httpx.Response = narrow.http.post("/run_code/batch", json={"programs": programs})
        return answer

    results = batch(3).json()["results"]
    assert [result["run_result"]["stdout"] for result in results] == [f"{n}\n" for n in range(3)]
    refused = batch(4)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert batch(9).status_code == 503


def test_a_caller_that_goes_away_frees_its_worker(narrow: Sandbox) -> None:
    with pytest.raises(httpx.ReadTimeout):
        narrow.http.post("/run_code", json={"code": "while True: pass", "run_timeout": 100}, timeout=0.5)
    began = time.monotonic()
    assert narrow.stdout("print(1)") == "1\n"
    assert time.monotonic() - began < 10
    # Nothing is left of the program that spun.
    assert not busy_processes(narrow)
    assert "Traceback" not in narrow.log.read_text()

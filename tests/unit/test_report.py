"""The report of a run: all of it from complete rounds, as much as there is from rounds that ended early, and always written."""

import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from ratchet.contracts.prm import Calibration
from ratchet.contracts.round_metrics import (
    Comparison,
    DatasetCard,
    Decision,
    Figure,
    LabelCounts,
    Measured,
    MeasuredPair,
    MeasuredPairs,
    PrmQuality,
    ProblemCounts,
    RoundMetrics,
    SftValidation,
    SplitCounts,
    StartModels,
    TrainedPolicy,
    TrainedPrm,
    ValidationPoint,
    Verdict,
)
from ratchet.contracts.rounds import RoundConfig, RoundView
from ratchet.contracts.search import StrategyName
from ratchet.settings import TrainerSettings
from ratchet.states import RoundState
from ratchet.statistics import wilson
from services.trainer.report import curve
from services.trainer.report.curve import points
from services.trainer.report.page import page
from services.trainer.report.sections import sections
from services.trainer.report.tables import Section
from services.trainer.report.write import write_report
from tests import old_round
from tests.rounds_seen import seen

HOSTILE = "Nothing to learn from <script>alert('x')</script> & $\\frac{$ {{ 7 * 7 }}"
SECTIONS = [
    *("accuracy", "strategies", "coverage", "policy", "prm", "gate", "cost", "data", "lineage", "failures"),
]
VOID = {"meta", "br", "img", "link", "hr", "input"}


def figures(right: int, n: int = 40, tokens: float = 400.0, first: int = 0) -> Measured:
    outcomes = "".join("1" if (place - first) % n < right else "0" for place in range(n))
    return Measured(
        n=n, right=right, accuracy=right / n, ci95=wilson(right, n), tokens=tokens, outcomes=outcomes
    )


def measurements(right: int) -> dict[str, Measured]:
    return {
        "held_out.greedy": figures(right, tokens=55.0),
        "held_out.mcts": figures(right - 1, first=2),
        "held_out.best_of_n": figures(right - 2),
        "held_out.majority": figures(right - 3),
        "development.greedy": figures(right, tokens=55.0),
    }


TRAINING: dict[str, Any] = {
    **{"steps": 9, "epochs": 1, "final_loss": 0.1, "seconds": 9.0, "tokens_per_second": 99.0},
    **{"dropped_too_long": 0, "job": "1", "uri": "/model"},
}
AUC = Figure(value=0.8, low=0.7, high=0.9, n=481)
QUALITY = PrmQuality(
    problems=30,
    within_step_auc=AUC,
    within_end_auc=AUC,
    sibling_accuracy=AUC,
    sibling_accuracy_by_depth={"2": AUC, "10": AUC},
    first_error_f1=AUC,
    pooled_step_auc=AUC,
    pooled_end_auc=AUC,
    calibration_error_raw=AUC,
    end_calibration_error=AUC,
    # All of one kind: there is no such figure.
    calibration_error=Figure(value=None, low=None, high=None, n=0),
)
MODELS = StartModels(
    base="nano@19cb7e97",
    base_uri="/nano",
    policy="nano@19cb7e97",
    policy_uri="/nano",
    prm="prm1-likelihood",
)
LABEL = LabelCounts(
    problems=30, solved=20, coverage=0.6667, searches=40, failed=0, tokens=156_257, rollouts=320
)
CARD = DatasetCard(
    problems=30,
    solved=20,
    selected_problems=20,
    trajectories_found=215,
    trajectories_selected=35,
    quarantined=0,
    dropped={"wrong answer": 178, "too long": 2},
    coverage={
        "family": {"ages": [11, 12], "<b>bus": [9, 18]},
        "difficulty": {"10": [1, 2], "2": [19, 28]},
    },
    from_earlier_rounds=0,
    trees=30,
    dataset=UUID(int=1),
    sha256="7d9c11bd5cf8f2ad",
    rows=35,
)


def validation_of(step: int) -> SftValidation:
    curve = [ValidationPoint(step=at, nll=nll) for at, nll in ((0, 0.4), (6, 0.35), (9, 0.5))]
    nll, scale = (0.3, 0.5) if step else (0.4, 0.0)
    return SftValidation(problems=5, programs=8, curve=curve, base_nll=0.4, nll=nll, step=step, scale=scale)


VERDICT = Verdict(
    promoted=True,
    lost=[],
    comparisons={
        "development.samples": Comparison(
            n=200, difference=0.325, ci95=(0.25, 0.4), decision=Decision.NOT_WORSE
        ),
        "development.mcts": Comparison(
            n=400, difference=-0.001, ci95=(-0.03, 0.02), decision=Decision.UNDECIDED
        ),
    },
    candidate="new new",
    reference="old old",
    best="new new",
    selection={"new new": figures(31), "new old": figures(30), "old old": figures(20)},
)


def complete(number: int, before: int, after: int, state: RoundState = RoundState.PROMOTED) -> RoundView:
    old, new = measurements(before), measurements(after)
    counts = SplitCounts(problems=30, refused=1, set_aside=0)
    metrics = RoundMetrics(
        models=MODELS,
        problems=ProblemCounts(train=counts, development=counts, held_out=counts),
        label=LABEL,
        selection=CARD,
        policy=TrainedPolicy(
            **TRAINING,
            version=f"run-r{number}-policy@7adf",
            sha256="7adfaeff83dc",
            tokens=80_409,
            examples=35,
            step_format="chat",
            validation=validation_of(0 if number == 4 else 6),
        ),
        prm=TrainedPrm(
            **TRAINING,
            version=f"run-r{number}-prm@e357",
            sha256="e357a59760a3",
            tokens=99_000,
            trees=30,
            problems=30,
            held_out_problems=10,
            sibling_pairs=40,
            trajectory_pairs=40,
            values=400,
            calibration=Calibration(),
            quality=QUALITY,
        ),
        evaluation=MeasuredPairs(
            incumbent=MeasuredPair(pair="old", measured=old),
            candidate=MeasuredPair(pair="new", measured=new),
        ),
        gate=VERDICT,
        seconds={RoundState.CREATED: 0.2, RoundState.SEARCHING: 50.0, RoundState.EVALUATING: 149.8},
    )
    return seen(number, state, metrics)


class Document(HTMLParser):
    """Fails on a tag that is not closed where it should be; keeps texts by section, tags and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.texts: dict[str, str] = {"": ""}
        self._section = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
            self.texts[self._section] = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        self.texts[self._section] += data


def rows(of: Section, table: int = 0) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in of.tables[table].rows}


RUN = [
    complete(1, 17, 30),
    complete(2, 30, 25, RoundState.REJECTED),
    seen(3, RoundState.FAILED, reason=HOSTILE),
    complete(4, 30, 36),
]


def test_a_prm_that_nothing_was_held_out_for_is_said_to_be_neither_judged_nor_calibrated() -> None:
    whole = complete(1, 17, 30)
    prm = whole.metrics.prm
    assert prm is not None
    blind = whole.metrics.model_copy(update={"prm": prm.model_copy(update={"held_out_problems": 0})})
    [section] = [each for each in sections([seen(1, RoundState.PROMOTED, blind)]) if each.anchor == "prm"]
    assert section.notes[1].startswith("Round 1: no tree is of a problem that was held out")


async def test_report_is_written_whole(tmp_path: Path) -> None:
    # The store gives the newest first.
    await write_report(TrainerSettings(rounds_dir=tmp_path), RUN[::-1])
    folder = tmp_path / "run-seed7"
    assert sorted(file.name for file in folder.iterdir()) == ["accuracy.png", "report.html", "report.json"]
    png = (folder / "accuracy.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert min(struct.unpack(">II", png[16:24])) >= 800
    kept = orjson.loads((folder / "report.json").read_bytes())
    assert [each["number"] for each in kept["rounds"]] == [1, 2, 3, 4]
    assert (kept["summary"]["base"], kept["summary"]["rounds"][3]["policy_pass1"]) == (17 / 40, 36 / 40)
    assert kept["summary"]["rounds"][3]["label_tokens"] == 156_257
    document = Document((folder / "report.html").read_text())
    assert [section for section in document.texts if section] == SECTIONS
    assert "On 40 held-out problems: policy pass@1 from 42.5\xa0% to 90.0\xa0%" in document.texts[""]
    assert "It knows only the families" in document.texts[""]
    assert "the project's goal" in document.texts["accuracy"]
    assert "a goal to compare with, not a measurement" in document.texts["accuracy"]


def test_page_needs_no_network_and_runs_nothing_foreign() -> None:
    text = page(RUN)
    document = Document(text)
    assert not document.tags & {"script", "link", "iframe", "b"}
    assert document.links
    assert all(link.startswith("#") for link in document.links)
    assert "url(http" not in text
    assert HOSTILE in document.texts["failures"]
    assert "<b>bus" in document.texts["coverage"]


def test_curve_joins_what_was_served() -> None:
    drawn = points(RUN, StrategyName.GREEDY)
    assert [(each.number, each.estimate.value, each.served) for each in drawn] == [
        (0, 17 / 40, True),
        (1, 30 / 40, True),
        (2, 25 / 40, False),
        (4, 36 / 40, True),
    ]


def test_tables_say_what_was_measured() -> None:
    found = {each.anchor: each for each in sections(RUN)}
    assert rows(found["accuracy"])["4"] == ["90.0 %", "87.5 %", "85.0 %", "82.5 %", "40"]
    assert rows(found["accuracy"])["3"] == ["–"] * 5
    # 29 right from the third on, against 28 right from the first on: 3 and 2 of them alone.
    assert rows(found["strategies"])["1"][-1] == "3 : 2"
    assert rows(found["coverage"])["ages"] == ["91.7 %", "91.7 %", "–", "91.7 %"]
    assert list(rows(found["coverage"], 1)) == ["2", "10"]
    assert rows(found["policy"])["1"] == [
        *("chat", "35", "9", "8 programs", "0.4000", "0.5000", "step 6", "0.3000"),
    ]
    assert rows(found["policy"])["4"][-2:] == ["the base", "0.4000"], "nothing was better"
    assert rows(found["policy"])["3"] == ["–"] * 8
    assert rows(found["prm"])["1"] == ["0.800"] * 6 + ["30"]
    assert rows(found["prm"], 1)["1"] == ["0.800", "–", "0.800", "–"]
    assert found["prm"].tables[2].columns[1:] == ("siblings of depth 2", "siblings of depth 10")
    assert len(found["prm"].notes) == 1
    compared, chosen = found["gate"].tables
    verdicts = {(row[0].text, row[1].text): [cell.text for cell in row[2:]] for row in compared.rows}
    assert verdicts["1", "policy pass@1"] == ["200", "+32.5", "+25.0 to +40.0", "not worse"]
    assert verdicts["1", "whole system"] == ["400", "-0.1", "-3.0 to +2.0", "not decided"]
    assert [[cell.text for cell in row[1:]] for row in chosen.rows[:3]] == [
        ["new new", "77.5 %", "40", "tested"],
        ["new old", "75.0 %", "40", ""],
        ["old old", "50.0 %", "40", "reference"],
    ]
    assert "Of pairs that are 2 points worse at most 10 % are promoted" in found["gate"].notes[0]
    assert rows(found["cost"])["all stages"] == ["200.0", "200.0", "–", "200.0"]
    assert [bar.parts[-1][1] for bar in found["cost"].bars] == [149.8] * 3
    assert sum(width for *_, width in found["cost"].bars[0].parts) == pytest.approx(100)
    assert rows(found["data"], 1)["wrong answer"] == ["178", "178", "–", "178"]
    lineage = [tuple(cell.text for cell in row[1:4]) for row in found["lineage"].tables[0].rows]
    assert lineage[:2] == [
        ("policy", "run-r1-policy@7adf", "nano@19cb7e97"),
        ("PRM", "run-r1-prm@e357", "run-r1-policy@7adf"),
    ]
    assert list(rows(found["failures"])) == ["2", "3"]


@pytest.mark.parametrize("missing", RoundMetrics.model_fields)
def test_round_without_one_part_is_reported(missing: str) -> None:
    metrics = RoundMetrics(**{name: part for name, part in RUN[0].metrics if name != missing})
    document = Document(page([seen(1, RoundState.FAILED, metrics, "disk full")]))
    assert [section for section in document.texts if section] == SECTIONS
    assert "disk full" in document.texts["failures"]


def test_round_of_an_older_version_is_reported() -> None:
    old = seen(1, RoundState.PROMOTED, RoundMetrics.model_validate(old_round.METRICS, extra="ignore"))
    found = {each.anchor: each for each in sections([old])}
    assert rows(found["accuracy"])["1"] == ["60.0 %", "–", "–", "–", "10"]
    assert [row[1].text for row in found["gate"].tables[0].rows] == ["policy pass@1 (greedy)"]
    assert [row[-1].text for row in found["gate"].tables[0].rows] == ["not worse"]
    assert Document(page([old])).texts["prm"]


def test_first_round_failed_before_it_began() -> None:
    text = page([seen(1, RoundState.FAILED, reason="No policy serves yet.")])
    assert "No policy serves yet." in text
    assert 'id="nano"' not in text


def test_rounds_on_other_problems_are_not_passed_off_as_comparable() -> None:
    other = RUN[3].model_copy(update={"config": RoundConfig(seed=8)})
    assert 'id="incomparable"' not in page(RUN)
    assert 'id="incomparable"' in page([RUN[0], other])


async def test_report_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "run-seed7").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="run-seed7"):
        await write_report(TrainerSettings(rounds_dir=tmp_path), RUN)


async def test_figures_that_nobody_foresaw_are_an_os_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> bytes:
        raise ZeroDivisionError("no width")

    monkeypatch.setattr(curve, "png", fails)
    with pytest.raises(OSError, match="the report could not be made: ZeroDivisionError: no width"):
        await write_report(TrainerSettings(rounds_dir=tmp_path), RUN)

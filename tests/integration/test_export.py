"""Exports from a real Postgres: what leaves, in which shape, and what does not."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
import yaml
from sqlalchemy.ext.asyncio import AsyncEngine

from ratchet.contracts.search import VerificationLevel
from ratchet.exports.export import Order, write_export
from ratchet.exports.gathering import Asked, ExportError
from ratchet.exports.kinds import COLUMNS, Format, From, Kind, Style
from ratchet.problems import problem_id
from ratchet.stack.database import Stored
from ratchet.states import RoundState
from ratchet.store import tables as t
from ratchet.store.engine import transaction
from ratchet.store.rounds import RoundStore
from tests.integration.exported_data import RIGHT, WRONG, Split, a_round, a_search, verified
from tests.integration.round_claims import a_run

GOOD, APART, LATER, OVERRULED, MEASURED, NEAR = (
    "A baker bakes 7 trays of 6 loaves. How many loaves are there?",
    "Six buses bring seven pupils each. How many pupils come?",
    "Forty birds sit on a roof and two more come. How many birds sit there?",
    "A farmer has 50 sheep and sells 8 of them. How many sheep are left?",
    "Nina reads 6 pages a day for a week. How many pages does she read?",
    "Otto walks six miles on every day of the whole week and counts all of them in a small red book. How many miles are in it?",
)
NEARLY = NEAR.replace("?", " ?").replace("Otto", "OTTO")
ALL = Asked(frozenset(Kind), Style.PROGRAM)


@pytest.fixture(autouse=True)
async def _each_alone(engine: AsyncEngine) -> AsyncIterator[None]:
    yield
    async with transaction(engine) as connection:
        tables = ", ".join(table.name for table in t.metadata.sorted_tables)
        await connection.exec_driver_sql(f"TRUNCATE {tables} CASCADE")


@pytest.fixture
def stored(engine: AsyncEngine, tmp_path: Path) -> Stored:
    return Stored(engine, tmp_path / "rounds", tmp_path / "problems")


async def exported(stored: Stored, target: Path, order: Order) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The rows of an export by kind and split, which are those that it counts."""
    made = await write_export(stored, order, target)
    found = {}
    for file in made["files"]:
        path = target / file["path"]
        rows = (
            pq.read_table(path).to_pylist()
            if path.suffix == ".parquet"
            else [orjson.loads(line) for line in path.read_bytes().splitlines()]
        )
        assert len(rows) == file["rows"]
        assert all(list(row) == list(COLUMNS[Kind(file["kind"])]) for row in rows)
        found[file["kind"], file["split"]] = rows
    return found


async def a_run_of_rounds(stored: Stored) -> str:
    run = a_run()
    split = Split(train=[GOOD, APART, LATER, OVERRULED, MEASURED, NEARLY], kept_apart=[APART])
    await a_round(stored.engine, stored.rounds_dir, run, split)
    # The next round has set two of them aside, one of which a person trusts.
    second = Split(train=[GOOD, LATER, OVERRULED], aside=[LATER, OVERRULED], kept_apart=[APART])
    await a_round(stored.engine, stored.rounds_dir, run, second)
    await RoundStore(stored.engine).overrule(run, problem_id(OVERRULED, "42"))
    await a_round(
        stored.engine,
        stored.rounds_dir,
        a_run(),
        Split(train=[GOOD], development=[MEASURED], held_out=[NEAR]),
    )
    return run


@pytest.mark.parametrize("format_", Format)
async def test_a_run_leaves_without_what_was_set_aside_and_without_what_models_are_measured_on(
    stored: Stored, tmp_path: Path, format_: Format
) -> None:
    run = await a_run_of_rounds(stored)
    order = Order(ALL, From.ROUNDS, format_, run, number=1)
    found = await exported(stored, tmp_path / "out", order)
    assert set(found) == {(kind, split) for kind in Kind for split in ("train", "validation")}
    good, apart, overruled = (problem_id(text, "42") for text in (GOOD, APART, OVERRULED))
    for kind in Kind:
        assert {row["problem_id"] for row in found[kind, "train"]} == {good, overruled}
        assert {row["problem_id"] for row in found[kind, "validation"]} == {apart}
    everything = "\n".join(file.read_text("latin-1") for file in (tmp_path / "out").rglob("*.jsonl"))
    assert not any(text in everything for text in (LATER, MEASURED, NEARLY))


async def test_the_shapes_are_those_that_trainers_read(stored: Stored, tmp_path: Path) -> None:
    await a_round(stored.engine, stored.rounds_dir, a_run(), Split(train=[GOOD]))
    found = await exported(stored, tmp_path / "out", Order(ALL, From.ROUNDS))
    origin = {"problem_id": problem_id(GOOD, "42"), "round": 1}
    solution = {**origin, "family": None, "difficulty": None, "weight": 1.0}
    program = "\n".join(RIGHT)
    assert found["messages", "train"] == [
        {
            "messages": [
                {"role": "user", "content": GOOD},
                {"role": "assistant", "content": f"```python\n{program}\n```"},
            ],
            **solution,
        }
    ]
    prompt = f"{GOOD}\n\n"
    assert found["prompt_completion", "train"] == [
        {"prompt": prompt, "completion": f"{program}\n", **solution}
    ]
    pair = {"q_chosen": 1.0, "q_rejected": -1.0, "weight": 1.0, **origin}
    chosen, rejected = RIGHT[1], WRONG[1]
    [step, *solutions] = found["preference", "train"]
    after = f"{prompt}{RIGHT[0]}\n"
    assert step == {
        "prompt": after,
        "chosen": f"{chosen}\n",
        "rejected": f"{rejected}\n",
        "pair": "step",
        **pair,
    }
    # The same two ends are compared once.
    assert solutions == []
    steps = {"prompt": GOOD, "soft_weights": [2 / 3, 1.0], **origin}
    assert found["stepwise", "train"] == [
        {**steps, "completions": RIGHT, "labels": [True, True], "soft_labels": [0.5, 1.0], "correct": True},
        {**steps, "completions": WRONG, "labels": [True, False], "soft_labels": [0.5, 0.0], "correct": False},
    ]
    assert [(row["completion"], row["label"]) for row in found["kto", "train"]] == [
        (f"{program}\n", True),
        ("\n".join(WRONG) + "\n", False),
    ]
    [answer] = found["verified", "train"]
    assert (answer["problem"], answer["answer"], answer["program"]) == (GOOD, "42", program)
    assert (answer["probability"], answer["level"], answer["proof_sha256"]) == (1.0, "reference", "5" * 64)
    assert (answer["policy"], answer["prm"]) == ("p@1", "prm1-likelihood")


async def test_the_card_names_models_files_filters_and_a_licence_only_where_one_is_declared(
    stored: Stored, tmp_path: Path
) -> None:
    run = await a_run_of_rounds(stored)
    made = await write_export(
        stored, Order(ALL, From.ROUNDS, run=run, number=1, proofs=True), tmp_path / "out"
    )
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "unknown"
    assert {each["config_name"] for each in front["configs"]} == set(Kind)
    paths = {file["path"] for each in front["configs"] for file in each["data_files"]}
    for config in front["configs"]:
        paths |= {file["path"] for file in config["data_files"]}
    assert paths == {file["path"] for file in made["files"]}
    assert all(file["sha256"] in card for file in made["files"])
    assert "round-1/sft.jsonl" in card
    for why, count in made["left_out"].items():
        assert f"| {why} | {count} |" in card
    proofs = {file.stem for file in (tmp_path / "out" / "proofs").iterdir()}
    answers = (tmp_path / "out" / "verified" / "train.jsonl").read_bytes().splitlines()
    assert {orjson.loads(line)["search"] for line in answers} < proofs


async def test_of_searches_those_leave_that_a_person_began_and_that_are_good_enough(
    stored: Stored, tmp_path: Path
) -> None:
    await a_round(
        stored.engine,
        stored.rounds_dir,
        a_run(),
        Split(train=[LATER], aside=[LATER], development=[MEASURED]),
    )
    agreed = verified(VerificationLevel.AGREEMENT, 0.8)
    with_reference = await a_search(stored.engine, GOOD, reference="42")
    without = await a_search(stored.engine, APART, outcome=agreed, key="of a client")
    for problem, key, outcome in (
        (OVERRULED, "eval-1", agreed),
        (OVERRULED, "0198f1d2-7c1e-7b43-9d55-0d1a5b7f3c11 eval-2", agreed),
        (OVERRULED, None, verified(VerificationLevel.EXECUTION, 0.9)),
        (OVERRULED, None, verified(VerificationLevel.AGREEMENT, 0.6)),
        (LATER, None, agreed),
        (MEASURED, None, agreed),
        (NEAR, None, agreed),
    ):
        await a_search(stored.engine, problem, key=key, outcome=outcome)
    asked = Asked(frozenset(Kind), Style.MARKERS, excluded=[NEARLY])
    found = await exported(stored, tmp_path / "out", Order(asked, From.SEARCHES, min_confidence=0.7))
    assert [row["search"] for row in found["verified", "train"]] == [with_reference, without]
    assert [row["problem"] for row in found["verified", "train"]] == [GOOD, APART]
    assert [row["prompt"] for row in found["prompt_completion", "train"]] == [f"{GOOD}\n", f"{APART}\n"]
    [completion] = {row["completion"] for row in found["prompt_completion", "train"]}
    assert completion == "a = 40\n<end_of_step>\nprint(a + 2)\n<end_of_step>\n<end_of_code>"
    # Nobody knows which ends of the other's tree are right.
    assert {row["prompt"] for row in found["kto", "train"]} == {f"{GOOD}\n"}
    assert {row["prompt"] for row in found["stepwise", "train"]} == {GOOD}


async def test_nothing_is_written_where_files_are_damaged_or_nothing_may_leave(
    stored: Stored, tmp_path: Path
) -> None:
    run, target = a_run(), tmp_path / "out"
    with pytest.raises(ExportError, match="no run"):
        await write_export(stored, Order(ALL, From.ROUNDS, run=run), target)
    with pytest.raises(ExportError, match="nothing that may leave"):
        await write_export(stored, Order(ALL, From.SEARCHES), target)
    await a_round(stored.engine, stored.rounds_dir, run, Split(train=[GOOD]))
    file = stored.rounds_dir / run / "round-1" / "sft.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b"\n")
    with pytest.raises(ExportError, match="is not the one that the round has written"):
        await write_export(stored, Order(ALL, From.ROUNDS), target)
    file.write_bytes(whole)
    trees = file.with_name("trees.jsonl")
    trees.write_bytes(trees.read_bytes() + b'{"problem_id": 1}\n')
    with pytest.raises(ExportError, match="a tree that cannot be read"):
        await write_export(stored, Order(ALL, From.ROUNDS), target)
    trees.unlink()
    with pytest.raises(ExportError, match="cannot be read"):
        await write_export(stored, Order(ALL, From.ROUNDS), target)
    assert not target.exists()
    assert {each.name for each in tmp_path.iterdir()} == {"rounds"}
    target.mkdir()
    (target / "mine").write_text("x")
    with pytest.raises(ExportError, match="is there already"):
        await write_export(stored, Order(ALL, From.ROUNDS), target)


async def test_a_round_under_way_does_not_leave(stored: Stored, tmp_path: Path) -> None:
    run = a_run()
    await a_round(stored.engine, stored.rounds_dir, run, Split(train=[GOOD]))
    async with transaction(stored.engine) as connection:
        await connection.execute(t.rounds.update().values(state=RoundState.TRAINING_PRM))
    with pytest.raises(ExportError, match="no round that is over"):
        await write_export(stored, Order(ALL, From.ROUNDS), tmp_path / "out")

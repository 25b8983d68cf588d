"""Training of a PRM on trees of a known rule, with a policy of 0.1 M parameters: it learns the rule, and fails in words."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ratchet.contracts.prm import Calibration
from ratchet.contracts.training import Lora, PrmTraining
from ratchet.models.prm_head import calibration_of, prm_text
from ratchet.solutions.preferences import Node, Tree, nodes_that_ran, path, preferences
from services.prm.head import TrainedHead
from services.trainer.training import prm as prm_training
from services.trainer.training.jobs import (
    PrmJob,
    PrmResult,
    Progress,
    ProgressWriter,
    TrainingFailedError,
    run_job,
)
from services.trainer.training.prm import dataset, loss_of, plan, train
from services.trainer.training.prm_network import load_policy, logits_of
from services.trainer.training.prm_pieces import pieces
from services.trainer.training.prm_readings import HeldOut, first_error, readings
from tests.known_trees import known_trees, write_trees
from tests.models import make_checkpoint

CONFIG = PrmTraining(
    epochs=2,
    lr=3e-3,
    batch_tokens=4096,
    value_weight=1.0,
    token_weight=0.5,
    edit_distance=1,
    batch_problems=1,
    dtype="fp32",
    threads=1,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "policy", step_format="markers")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trees(tmp_path_factory.mktemp("data") / "trees.jsonl", known_trees(80))


HELD_OUT = [f"p{number}" for number in range(20)]


def job(base: Path, out: Path, *data: Path, **config: Any) -> PrmJob:
    return PrmJob(
        base=base, out=out, data=list(data), held_out=HELD_OUT, config=CONFIG.model_copy(update=config)
    )


@pytest.fixture(scope="module")
def trained(base: Path, trees: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PrmJob, PrmResult]:
    one = job(base, tmp_path_factory.mktemp("out"), trees)
    return one, train(one)


@pytest.fixture(scope="module")
def policy(base: Path) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model, tokenizer = load_policy(base, CONFIG, "cpu")
    return model.eval(), tokenizer


def packed(tree: Tree, tokenizer: Any, **limits: int) -> tuple[list[Any], int]:
    found = preferences(tree, margin=0.5, edit_distance=1)
    return pieces(
        tree, nodes_that_ran(tree), found, tokenizer, **({"limit": 10_000, "max_length": 4096} | limits)
    )


@torch.inference_mode()
def test_each_step_of_a_packed_tree_is_read_as_on_its_path_alone(policy: tuple[Any, Any]) -> None:
    model, tokenizer = policy
    trees = known_trees(2)
    both = [packed(tree, tokenizer)[0][0] for tree in trees]
    # A batch of two, of which one is padded.
    for tree, piece, row in zip(trees, both, logits_of(model, both, None), strict=True):
        nodes = nodes_that_ran(tree)
        assert set(piece.nodes) == set(nodes)
        for node, end in zip(piece.nodes, piece.ends, strict=True):
            text, _ = prm_text(tree.problem, [step.text for step in path(nodes, node)])
            ids = tokenizer(text.removesuffix("\n"), return_tensors="pt")["input_ids"]
            assert tokenizer.decode(ids[0, -1]) == "<end_of_step>"
            alone = model(input_ids=ids).logits[0, -1, 0]
            assert float(row[end]) == pytest.approx(float(alone), abs=1e-4)


def test_what_paths_have_in_common_is_there_once(policy: tuple[Any, Any]) -> None:
    tree = known_trees(1)[0]
    nodes = nodes_that_ran(tree)
    piece = packed(tree, policy[1])[0][0]
    paths = [
        policy[1](prm_text(tree.problem, [step.text for step in path(nodes, node)])[0])["input_ids"]
        for node in nodes
    ]
    # A path's last token is the line break after its marker, which nothing reads.
    assert len(piece) < 0.5 * sum(map(len, paths))
    assert len(piece) >= len({tuple(ids[:length]) for ids in paths for length in range(1, len(ids))})


def test_a_tree_in_parts_has_every_pair_and_counts_every_value_once(policy: tuple[Any, Any]) -> None:
    tree = known_trees(1)[0]
    whole, parts = packed(tree, policy[1])[0], packed(tree, policy[1], limit=250)[0]
    assert len(whole) == 1
    assert len(parts) > 1
    assert all(len(piece) <= 250 for piece in parts)

    def pairs(some: list[Any]) -> Counter[tuple[str, str, float]]:
        return Counter(
            (piece.nodes[better], piece.nodes[worse], float(weight))
            for piece in some
            for better, worse, weight in zip(piece.better, piece.worse, piece.pair_weights, strict=True)
        )

    def values(some: list[Any]) -> Counter[tuple[str, float]]:
        return Counter(
            (node, float(target))
            for piece in some
            for node, (target, weight) in zip(piece.nodes, piece.values, strict=True)
            if weight
        )

    assert pairs(parts) == pairs(whole)
    assert set(pairs(whole).values()) == {1}
    assert values(parts) == values(whole)


def test_steps_beyond_the_longest_length_are_left_out_and_counted(policy: tuple[Any, Any]) -> None:
    tree = known_trees(1)[0]
    all_nodes = set(nodes_that_ran(tree))
    some, dropped = packed(tree, policy[1], max_length=60)
    read = {node for piece in some for node in piece.nodes}
    assert 0 < len(read) == len(all_nodes) - dropped
    assert all(len(piece.tokens) and max(piece.positions) < 60 for piece in some)


def test_the_loss_is_that_of_the_definition(policy: tuple[Any, Any]) -> None:
    one = packed(known_trees(1)[0], policy[1])[0][0]
    logits = torch.randn(1, len(one), dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    read = [float(logits[0, end]) for end in one.ends]
    ranking = sum(
        weight * torch.nn.functional.softplus(torch.tensor(read[worse] - read[better])).item()
        for better, worse, weight in zip(one.better, one.worse, one.pair_weights, strict=True)
    ) / sum(one.pair_weights)
    values = sum(
        weight
        * torch.nn.functional.binary_cross_entropy_with_logits(
            torch.tensor(score), torch.tensor(float(target))
        ).item()
        for score, (target, weight) in zip(read, one.values, strict=True)
    ) / sum(one.values[:, 1])
    totals = prm_training._totals([one])

    def loss(**weights: float) -> float:
        config = CONFIG.model_copy(
            update={"pair_weight": 0.0, "value_weight": 0.0, "token_weight": 0.0} | weights
        )
        return float(loss_of(logits, [one], config, totals))

    assert loss(pair_weight=1.0) == pytest.approx(ranking, rel=1e-4)
    assert loss(value_weight=0.5) == pytest.approx(0.5 * values, rel=1e-4)
    assert loss(pair_weight=2.0, value_weight=1.0) == pytest.approx(2 * ranking + values, rel=1e-4)
    assert loss(token_weight=1.0) > 0


def test_a_prm_learns_to_tell_right_steps_from_wrong_ones(trained: tuple[PrmJob, PrmResult]) -> None:
    _, result = trained
    figures = result.quality
    assert result.held_out_problems == figures.problems == 20
    for good in (
        figures.within_step_auc,
        figures.within_end_auc,
        figures.sibling_accuracy,
        figures.first_error_f1,
        figures.pooled_step_auc,
    ):
        assert good is not None
        assert good.value is not None
        assert good.value > 0.9
    assert set(figures.sibling_accuracy_by_depth) == {"1", "2", "3"}
    assert figures.calibration_error.value is not None
    assert figures.calibration_error.value < 0.1
    assert result.losses[-1] < 0.6 * result.losses[0]


def test_the_checkpoint_is_whole_and_says_what_it_is(trained: tuple[PrmJob, PrmResult], base: Path) -> None:
    one, result = trained
    model = one.out / "model"
    assert (model / "model.safetensors").is_file()
    assert (model / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    config = json.loads((model / "config.json").read_text())
    assert calibration_of(config) == result.calibration
    assert config["ratchet_step_format"] == "markers"
    assert PrmResult.model_validate_json((one.out / "result.json").read_bytes()) == result
    assert not (one.out / "checkpoints").exists(), (
        "three times the weights' size, and nobody needs it any more"
    )


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_lora_trains_adapters_and_the_head_and_is_merged(
    trained: tuple[PrmJob, PrmResult], base: Path, trees: Path, tmp_path: Path, dtype: str
) -> None:
    one = job(base, tmp_path, trees, lora=Lora(r=8, alpha=16), lr=1e-2, dtype=dtype)
    learnt = train(one).quality.pooled_step_auc.value
    assert learnt is not None
    assert learnt > 0.9
    before, full, after = (
        load_file(folder / "model.safetensors")
        for folder in (base, trained[0].out / "model", tmp_path / "model")
    )
    assert after.keys() == full.keys()
    assert {value.dtype for value in after.values()} == {value.dtype for value in full.values()}
    embeddings, projection = "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"
    frozen = before[embeddings].to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    assert torch.equal(after[embeddings], frozen.float())
    assert not torch.equal(after[projection], before[projection])
    assert not torch.equal(full[embeddings], before[embeddings])


def test_what_was_trained_is_served(trained: tuple[PrmJob, PrmResult]) -> None:
    head = TrainedHead(trained[0].out / "model", device="cpu")
    scores: dict[bool, list[float]] = {True: [], False: []}
    for tree in known_trees(5, seed=9):
        nodes = nodes_that_ran(tree)
        ends = [node for node in nodes.values() if node.terminal]
        ways = [[step.text for step in path(nodes, end.id)] for end in ends]
        logits = head.logits([head.question(tree.problem, way, known=0) for way in ways])
        for end, row in zip(ends, logits, strict=True):
            scores[bool(end.correct)].append(head.calibration.probability(row[-1]))
    right, wrong = (sum(scores[kind]) / len(scores[kind]) for kind in (True, False))
    assert right > wrong + 0.5


def test_the_same_job_again_gives_the_result_that_is_there(
    trained: tuple[PrmJob, PrmResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prm_training, "_train", lambda *_: pytest.fail("trained again"))
    assert train(trained[0]) == trained[1]


@pytest.mark.parametrize("lora", [None, Lora(r=4, alpha=8)])
def test_a_training_that_was_killed_goes_on_and_ends_with_the_same_weights(
    base: Path, trees: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: Lora | None
) -> None:
    result = train(job(base, tmp_path / "whole", trees, lora=lora))
    broken = job(base, tmp_path / "broken", trees, lora=lora, save_every_steps=3)
    at = result.steps // 2

    def write(_: ProgressWriter, progress: Progress) -> None:
        if progress.step == at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ProgressWriter, "write", write)
        with pytest.raises(KeyboardInterrupt):
            train(broken)
    assert not (broken.out / "result.json").exists()
    assert not (broken.out / "model").exists()
    resumed = train(broken)
    first = json.loads((broken.out / "progress.jsonl").read_text().splitlines()[0])["step"]
    assert first == 3 * ((at - 1) // 3) + 1
    assert resumed.losses == pytest.approx(result.losses, rel=1e-4)
    again, once = resumed.quality.pooled_step_auc.value, result.quality.pooled_step_auc.value
    assert again == pytest.approx(once, abs=1e-3)


def test_exactly_the_problems_of_the_job_are_held_out_and_left_out_also_over_several_files(
    policy: tuple[Any, Any],
) -> None:
    rounds = known_trees(50) + known_trees(50, seed=1)
    data = dataset(rounds, policy[1], CONFIG, held_out=[*HELD_OUT, "not searched"], without=["p0", "p49"])
    assert {piece.problem_id for piece in data.train} == {f"p{number}" for number in range(20, 49)}
    assert {tree.problem_id for tree in data.held_out} == {f"p{number}" for number in range(1, 20)}
    assert (data.counts.trees, data.counts.problems, data.counts.held_out_problems) == (96, 48, 19)


def test_another_split_is_another_training(trained: tuple[PrmJob, PrmResult], tmp_path: Path) -> None:
    one, result = trained
    for other in ({"held_out": HELD_OUT[1:]}, {"without": ["p79"]}):
        fresh = one.model_copy(update={"out": tmp_path / next(iter(other)), **other})
        shutil.copytree(one.out, fresh.out)
        assert train(fresh).job != result.job


def test_without_held_out_problems_a_prm_is_neither_judged_nor_calibrated(base: Path, tmp_path: Path) -> None:
    data = write_trees(tmp_path / "trees.jsonl", known_trees(8))
    one = job(base, tmp_path / "out", data, epochs=1).model_copy(update={"held_out": []})
    result = train(one)
    assert result.held_out_problems == result.quality.problems == 0
    assert result.quality.pooled_step_auc.value is None
    assert result.calibration == Calibration()
    assert TrainedHead(one.out / "model", device="cpu").calibration == Calibration()


def test_a_step_holds_as_many_tokens_and_problems_as_it_should(policy: tuple[Any, Any]) -> None:
    train = dataset(known_trees(50), policy[1], CONFIG, held_out=[]).train
    size = max(map(len, train))
    for tokens, problems in ((size, 1), (size, 16), (4 * size, 1), (4 * size, 7), (100 * size, 16), (1, 100)):
        config = CONFIG.model_copy(
            update={"batch_tokens": tokens, "micro_tokens": size, "batch_problems": problems, "epochs": 2}
        )
        steps = plan(train, config)
        held = [{piece.problem_id for batch in step for piece in batch} for step in steps]
        assert all(len(each) >= min(problems, 50) for each in held)
        # Every tree once in each epoch.
        read = Counter(piece.problem_id for step in steps for batch in step for piece in batch)
        assert set(read.values()) == {2}
        if problems == 1:
            # No step goes beyond its tokens, one pass apart.
            sums = [sum(len(batch) * len(batch[-1]) for batch in step) for step in steps]
            assert max(sums) <= max(tokens, size)
            assert len(steps) > 2 * 50 * min(map(len, train)) / max(tokens, size)
    assert len(plan(train, CONFIG.model_copy(update={"batch_tokens": 1, "batch_problems": 16}))) == 2 * 3


def test_what_a_search_has_abandoned_is_not_counted(policy: tuple[Any, Any]) -> None:
    whole = known_trees(1)[0]
    step = {"ran": True, "q": 0.0, "visits": 0, "correct": None, "text": "# Left.\nx = 1"}
    left = [
        Node(id="left", parent=whole.nodes[0].id, terminal=False, **step),
        Node(id="left end", parent=None, terminal=True, **step),
    ]
    model, tokenizer = policy
    read = []
    for tree in (whole, whole.model_copy(update={"nodes": [*whole.nodes, *left]})):
        found = preferences(tree, margin=0.5, edit_distance=1)
        parts, _ = packed(tree, tokenizer)
        judge = HeldOut(tree.problem_id, nodes_that_ran(tree), found, parts)
        read.append(readings(model, [judge], margin=0.5, tokens=4096))
    for name in ("targets", "siblings", "paths", "first_errors", "is_end", "depths"):
        assert np.array_equal(getattr(read[0], name), getattr(read[1], name)), name


def test_readings_say_what_the_tree_knows_of_its_own_steps(policy: tuple[Any, Any]) -> None:
    model, tokenizer = policy
    tree = known_trees(1)[0]
    nodes = nodes_that_ran(tree)
    found = preferences(tree, margin=0.5, edit_distance=1)
    parts, _ = packed(tree, tokenizer)
    read = readings(model, [HeldOut("p", nodes, found, parts)], margin=0.5, tokens=4096)
    ids = list(found.values)
    assert len(read.logits) == len(nodes)
    pairs = {(ids[better], ids[worse]) for better, worse in read.siblings}
    assert pairs == {
        (one.id, other.id)
        for one in nodes.values()
        for other in nodes.values()
        if one.parent == other.parent and one.q - other.q >= 0.5
    }
    ways = [[ids[step] for step in way if step >= 0] for way in read.paths]
    assert {way[-1] for way in ways} == set(found.ends)
    for way, error in zip(ways, read.first_errors, strict=True):
        # A step is right as long as it and all before it add.
        adds = [" + " in nodes[step].text for step in way]
        assert error == (-1 if all(adds) else adds.index(False))


def test_a_first_error_is_known_only_where_something_was_right() -> None:
    assert first_error(["a", "b", "c"], False, {"a", "b", "d"}) == 2
    assert first_error(["a", "b", "c"], False, {"d"}) == 0
    assert first_error(["a", "b", "c"], True, {"a", "b", "c"}) == -1
    assert first_error(["a", "b", "c"], False, set()) is None


def only(right: bool) -> list[Tree]:
    """Trees whose ends are all of one kind."""
    return [
        tree.model_copy(
            update={
                "nodes": [
                    node.model_copy(update={"correct": right} if node.terminal else {}) for node in tree.nodes
                ]
            }
        )
        for tree in known_trees(24)
    ]


@pytest.mark.parametrize(
    ("trees", "config", "message"),
    [
        (known_trees(20), {}, "trees of 20 problems, 20 of them held out"),
        (only(True), {}, "is wrong, so there is nothing to tell apart"),
        (only(False), {}, "is right, so there is nothing to tell apart"),
        (known_trees(2), {}, "trees of 2 problems"),
        ([], {}, "trees of 0 problems"),
        (known_trees(24), {"edit_distance": 9999, "value_weight": 0, "token_weight": 0}, "No pair of steps"),
        (known_trees(30), {"lr": 1e30}, "the training diverged"),
    ],
)
def test_what_cannot_be_learnt_from_is_a_failure_that_says_why(
    base: Path, tmp_path: Path, trees: list[Tree], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingFailedError, match=message):
        train(job(base, tmp_path / "out", write_trees(tmp_path / "trees.jsonl", trees), **config))
    assert not (tmp_path / "out" / "model").exists()


def test_a_line_that_is_no_tree_is_named(base: Path, tmp_path: Path) -> None:
    file = write_trees(tmp_path / "trees.jsonl", known_trees(1))
    file.write_text(file.read_text() + '{"problem_id": "p"}\n')
    with pytest.raises(TrainingFailedError, match=r"trees\.jsonl, line 2: problem: Field required"):
        train(job(base, tmp_path / "out", file))


def test_a_process_leaves_its_reason_in_the_jobs_folder(base: Path, tmp_path: Path) -> None:
    one = job(base, tmp_path / "out", tmp_path / "gone.jsonl")
    (tmp_path / "job.json").write_text(one.model_dump_json())
    assert run_job(PrmJob, train, ["prm_training", str(tmp_path / "job.json")]) == 1
    assert "gone.jsonl cannot be read" in json.loads((tmp_path / "out" / "error.json").read_text())["reason"]


def test_a_policy_that_is_no_checkpoint_is_a_failure_that_says_so(
    base: Path, trees: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(TrainingFailedError, match=r"no \*\.safetensors"):
        train(job(broken, tmp_path / "out", trees))

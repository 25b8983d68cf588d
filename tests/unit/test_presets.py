"""Presets and their overrides, and what a round's request refuses."""

import itertools

import pytest
from pydantic import ValidationError

from ratchet.cli.overrides import OverrideError
from ratchet.cli.presets import NANO_TRAIN, Preset, round_config
from ratchet.contracts.rounds import ProblemSource, RoundConfig, RoundRequest, SelectBy
from ratchet.contracts.search import StrategyName


@pytest.mark.parametrize("preset", list(Preset))
@pytest.mark.parametrize("number", [1, 2, 3, 4, 9])
def test_every_preset_is_a_round_that_is_accepted(preset: Preset, number: int) -> None:
    config = round_config(preset, number, seed=7)
    assert config.seed == config.policy.seed == 7
    assert RoundRequest(config=config).config == config


def test_each_round_of_nano_takes_a_longer_beginning_of_the_same_problems() -> None:
    sources = [round_config(Preset.NANO, number, seed=3).train for number in (1, 2, 3, 4, 5)]
    counts = [source.count for source in sources]
    assert counts == sorted(counts)
    assert counts[0] < counts[3] == counts[4] <= NANO_TRAIN
    assert {(source.spec, source.offset) for source in sources} == {(sources[0].spec, 0)}


@pytest.mark.parametrize("preset", [Preset.GSM8K, Preset.GSM8K_2CORES])
def test_rounds_on_real_problems_take_fresh_ones_and_none_that_measure(preset: Preset) -> None:
    seen: list[range] = []
    for number in range(1, 25):
        config = round_config(preset, number, 0)
        train, *measured = (
            range(source.offset, source.offset + source.count)
            for source in (config.train, config.development, config.held_out)
            if source.spec == config.train.spec
        )
        assert measured
        assert all(train.stop <= each.start and each.stop <= 7473 for each in measured)
        assert len(measured) == 1 or measured[0].stop <= measured[1].start
        seen.append(train)
    fresh = seen.index(seen[0], 1)
    assert fresh >= 3
    assert seen[fresh : 2 * fresh] == seen[: len(seen[fresh : 2 * fresh])], "then from the beginning"
    assert all(one.stop <= other.start for one, other in itertools.pairwise(seen[:fresh]))


def test_the_preset_for_two_cores_runs_on_a_file_of_ones_own_and_rejection_sampling_is_a_setting_of_it() -> (
    None
):
    parts = ("train", "development", "held_out")
    config = round_config(
        Preset.GSM8K_2CORES,
        2,
        0,
        [
            *(f"{part}.spec=gsm8k_train.jsonl" for part in parts),
            "label.strategy=best_of_n",
            "label.tokens=1000",
            "selection.how=random",
            "prm=null",
        ],
    )
    assert {getattr(config, part).spec for part in parts} == {"gsm8k_train.jsonl"}
    assert (config.label.strategy, config.label.tokens, config.prm) == (StrategyName.BEST_OF_N, 1000, None)
    assert config.policy.step_format == "serving", "it is trained as it is served"
    with pytest.raises(ValidationError, match="best_of_n"):
        round_config(Preset.GSM8K_2CORES, 1, 0, ["label.strategy=greedy"])


def test_overrides_are_json_where_they_can_be_and_text_otherwise() -> None:
    config = round_config(
        Preset.NANO,
        1,
        0,
        [
            "policy.epochs=5",
            "label.top_p=0.5",
            "selection.how=random",
            "from_current=true",
            "prm=null",
            'policy.lora={"r": 4}',
            "train.spec=file=with.jsonl",
            "policy.epochs=6",
        ],
    )
    assert config.policy.epochs == 6, "the last one stands"
    assert config.policy.lr == 5e-4, "what was not named stays"
    assert config.label.top_p == 0.5
    assert config.selection.how is SelectBy.RANDOM
    assert config.from_current
    assert config.prm is None
    assert config.policy.lora is not None
    assert config.policy.lora.r == 4
    assert config.train.spec == "file=with.jsonl"


@pytest.mark.parametrize("override", ["policy.epochs", "=3", ""])
def test_an_override_without_name_or_value_is_refused(override: str) -> None:
    with pytest.raises(OverrideError, match=r"is not of the form name=value, like policy\.epochs=2"):
        round_config(Preset.NANO, 1, 0, [override])


def test_an_override_below_a_number_is_refused() -> None:
    with pytest.raises(OverrideError, match="seed holds no settings of its own"):
        round_config(Preset.NANO, 1, 0, ["seed.of.what=1"])


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("policy.epoch=2", ("policy", "epoch")),
        ("policy.epochs=many", ("policy", "epochs")),
        ("label.rollouts=0", ("label", "rollouts")),
        ("nonsense=1", ("nonsense",)),
        (".seed=1", ("",)),
    ],
)
def test_a_setting_that_does_not_exist_or_cannot_be_is_named(override: str, place: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as raised:
        round_config(Preset.NANO, 1, 0, [override])
    assert [error["loc"] for error in raised.value.errors()] == [place]


def test_overrides_of_one_round_do_not_reach_the_next() -> None:
    before = round_config(Preset.NANO, 2, 0)
    round_config(Preset.NANO, 2, 0, ["policy.lora.r=3", "evaluation.tokens=1"])
    assert round_config(Preset.NANO, 2, 0) == before


@pytest.mark.parametrize(
    ("one", "other"), [("train", "development"), ("train", "held_out"), ("development", "held_out")]
)
@pytest.mark.parametrize(("offset", "accepted"), [(0, False), (9, False), (10, True)])
def test_a_request_whose_splits_share_problems_is_refused(
    one: str, other: str, offset: int, accepted: bool
) -> None:
    config = RoundConfig().model_copy(
        update={
            one: ProblemSource(spec="hub:gsm8k", count=10),
            other: ProblemSource(spec="hub:gsm8k", count=5, offset=offset),
        }
    )
    body = {"config": config.model_dump()}
    if accepted:
        assert RoundRequest.model_validate(body).config == config
        return
    with pytest.raises(ValidationError, match=f"{one} must not overlap {other}"):
        RoundRequest.model_validate(body)


@pytest.mark.parametrize("run", ["", "a b", "../up", "-x", "x" * 65, "a/b"])
def test_a_run_is_named_so_that_it_can_be_a_folder(run: str) -> None:
    with pytest.raises(ValidationError) as raised:
        RoundRequest.model_validate({"run": run})
    assert [error["loc"] for error in raised.value.errors()] == [("run",)]

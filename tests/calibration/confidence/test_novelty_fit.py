"""Novelty on made-up tokens: few false alarms on parts of one kind, however few tiles; others stand out."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from orinspect.calibration.confidence.novelty_fit import LEAST_PARTS, novelty_section
from orinspect.runtime.errors import BundleError
from orinspect.runtime.infer.engines.engine import FloatArray
from orinspect.runtime.infer.signals.novelty import NoveltyMeter, NoveltyModel

HIDDEN, TOKENS = 64, 16


def parts(seed: int, count: int, *, away: float = 0.0, tiles: int | None = None) -> list[FloatArray]:
    """Parts of 1 to 20 tiles whose tokens vary along 8 directions; `away`: what all of them are moved by."""
    world = np.random.default_rng(1)
    mixing, offset = world.normal(size=(8, HIDDEN)), world.normal(size=HIDDEN)
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        shape = (tiles or int(rng.integers(1, 21)), TOKENS)
        tokens = rng.normal(size=(*shape, 8)) @ mixing + 0.3 * rng.normal(size=(*shape, HIDDEN))
        made.append((tokens + away * offset).astype(np.float32))
    return made


@pytest.fixture(scope="module")
def model() -> NoveltyModel:
    section = novelty_section(parts(2, 150), ["board"] * 150)
    assert section is not None
    assert (section["parts"], section["quantile"], section["groups"]) == (150, 0.99, 1)
    assert section["expected_share"] <= section["worst_share"] <= 0.05
    return NoveltyModel.from_json(json.loads(json.dumps(section)), HIDDEN)


def of_part(model: NoveltyModel, tokens: FloatArray) -> float:
    meter = NoveltyMeter(model)
    meter.see(tokens)
    assert meter.novelty is not None
    return meter.novelty


@pytest.mark.parametrize("tiles", [1, 5, 60])
def test_parts_of_the_same_kind_stay_under_the_limit(model: NoveltyModel, tiles: int) -> None:
    """At most 4 % of 300, four times what the quantile says."""
    beyond = sum(of_part(model, part) > 1 for part in parts(3, 300, tiles=tiles))
    assert beyond <= 12


@pytest.mark.parametrize("tiles", [1, 5, 60])
def test_parts_of_another_kind_lie_beyond_it(model: NoveltyModel, tiles: int) -> None:
    assert all(of_part(model, part) > 1 for part in parts(4, 40, away=0.5, tiles=tiles))


def test_a_part_counts_the_same_in_one_piece_or_in_chunks(model: NoveltyModel) -> None:
    (part,) = parts(5, 1, tiles=20)
    meter = NoveltyMeter(model)
    for first in range(0, 20, 7):
        meter.see(part[first : first + 7])
    assert meter.novelty == pytest.approx(of_part(model, part))


def test_no_tiles_are_nothing_new_and_no_model_knows_nothing(model: NoveltyModel) -> None:
    assert NoveltyMeter(model).novelty == 0.0
    empty = NoveltyMeter(None)
    empty.see(parts(6, 1)[0])
    assert empty.novelty is None


def boards(seed: int, count: int, apart: float) -> tuple[list[FloatArray], list[str]]:
    """30 parts of each of some boards; a board moves all of its tokens by `apart` along a way of its own."""
    rng = np.random.default_rng(seed)
    made, names = [], []
    for board in range(count):
        own = apart * rng.normal(size=HIDDEN).astype(np.float32)
        made += [part + own for part in parts(seed * 100 + board, 30)]
        names += [f"board{board}"] * 30
    return made, names


def test_boards_that_differ_widen_what_is_usual_and_a_new_board_stays_under_the_limit() -> None:
    """Fitted part by part, each board is known already, and a new one looks unlike."""
    made, names = boards(11, 5, 0.15)
    new = boards(12, 4, 0.15)[0]
    shares = {}
    for how, kin in (("board", names), ("part", ["one"] * len(names))):
        section = novelty_section(made, kin)
        assert section is not None
        fitted = NoveltyModel.from_json(section, HIDDEN)
        shares[how] = sum(of_part(fitted, part) > 1 for part in new) / len(new)
        assert all(of_part(fitted, part) > 1 for part in parts(4, 20, away=1.0))
        if how == "board":
            assert section["groups"] == 5
            assert section["expected_share"] <= section["worst_share"] <= 0.1
    assert shares["board"] <= 0.05 < shares["part"]


def test_one_board_with_nearly_all_parts_is_not_left_out_whole() -> None:
    section = novelty_section(parts(13, 100), ["large"] * 95 + ["small"] * 5)
    assert section is not None and section["worst_share"] <= 0.1


def test_a_group_a_part() -> None:
    with pytest.raises(ValueError, match="20 parts and 3 groups"):
        novelty_section(parts(14, 20), ["a", "b", "c"])


def test_too_few_parts_give_no_limit() -> None:
    assert novelty_section(parts(7, LEAST_PARTS - 1), ["board"] * (LEAST_PARTS - 1)) is None
    assert novelty_section([np.zeros((0, TOKENS, HIDDEN), np.float32)] * 50, ["board"] * 50) is None


def test_tokens_that_never_vary_are_no_error() -> None:
    section = novelty_section([np.ones((4, TOKENS, HIDDEN), np.float32)] * 30, ["a", "b"] * 15)
    assert section is not None
    assert of_part(NoveltyModel.from_json(section, HIDDEN), np.ones((3, TOKENS, HIDDEN), np.float32)) <= 1


def test_a_section_of_another_model_is_refused(model: NoveltyModel) -> None:
    with pytest.raises(BundleError, match="not of this model"):
        NoveltyModel.from_json({**model.to_json(), "mean": [0.0] * 32}, HIDDEN)
    with pytest.raises(BundleError, match="broken novelty section"):
        NoveltyModel.from_json({"mean": "?"}, HIDDEN)


@pytest.mark.parametrize("name", ["tile_mean", "tile_spread", "part_spread"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_makes_every_part_usual_is_refused(
    model: NoveltyModel, name: str, value: float
) -> None:
    with pytest.raises(BundleError, match="novelty section"):
        NoveltyModel.from_json({**model.to_json(), name: value}, HIDDEN)


def test_a_part_of_the_reference_costs_well_under_a_millisecond() -> None:
    """20 tiles of the reference's size; the best of many, because other processes run here too."""
    rng = np.random.default_rng(0)
    fit = [rng.normal(size=(20, 16, 192)).astype(np.float32) for _ in range(20)]
    section = novelty_section(fit, ["board"] * 20)
    assert section is not None
    measured = NoveltyModel.from_json(section, 192)
    spent = []
    for _ in range(50):
        started = time.perf_counter()
        of_part(measured, fit[0])
        spent.append(time.perf_counter() - started)
    assert min(spent) < 1e-3

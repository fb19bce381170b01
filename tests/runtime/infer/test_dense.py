"""Dense votes to boxes, with numbers small enough to check by hand: a grid of 4 x 4 tokens of 32 px."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from orinspect.runtime.errors import EngineError
from orinspect.runtime.infer.dense import Candidate, clipped, dense_candidates, is_cut, overlap, thinned
from orinspect.runtime.infer.engine import FloatArray
from orinspect.runtime.infer.tiles import Box, Tile

TYPES = 3
FINE = Tile(1, 1.0, 64, 128, (96, 160, 160, 224))
COARSE = Tile(2, 2.0, 0, 0, (0, 0, 96, 96))


def silence(tiles: int) -> dict[str, FloatArray]:
    return {
        "presence": np.full((tiles, 16), -9.0, np.float32),
        "type": np.zeros((tiles, 16, TYPES), np.float32),
        "box": np.full((tiles, 16, 4), 0.5, np.float32),
    }


def read(
    tiles: list[Tile], outputs: dict[str, FloatArray], columns: tuple[int, ...] = (0, 1, 2)
) -> list[Candidate]:
    return dense_candidates(
        tiles,
        outputs,
        columns=columns,
        tile_px=128,
        cell_px=32,
        limit=0.05,
        picture_wh=(640, 640),
        nms_iou=0.3,
    )


def candidate(box: Box, confidence: float, *, cut: bool = False, tile: int = 0) -> Candidate:
    return Candidate(box, tile, confidence, (confidence, 0.0, 0.0), cut)


def test_a_vote_becomes_a_box_around_its_cell_in_picture_pixels() -> None:
    outputs = silence(2)
    outputs["presence"][0, 6] = 2.0  # row 1, column 2: centre (80, 48) of the tile
    outputs["type"][0, 6] = [0.0, 3.0, 0.0]
    outputs["box"][0, 6] = [0.5, 0.25, 1.0, 0.125]
    outputs["presence"][1, 0] = 0.0
    found = read([FINE, COARSE], outputs)
    assert [one.tile for one in found] == [0, 1]
    assert list(found[0].box_xyxy) == [64 + 80 - 16, 128 + 48 - 8, 64 + 80 + 32, 128 + 48 + 4]
    assert found[0].presence == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert found[0].type_index == 1
    assert found[0].confidence == pytest.approx(found[0].presence * np.exp(3) / (np.exp(3) + 2))
    assert list(found[1].box_xyxy) == [
        0,
        0,
        64,
        64,
    ]  # half scale: 16 +- 16 of the tile is 0..64 of the picture
    assert found[1].presence == 0.5


def test_the_recipes_types_are_columns_of_the_head() -> None:
    outputs = silence(1)
    outputs["presence"][0, 3] = 5.0
    outputs["type"][0, 3] = [0.0, 0.0, 4.0]
    (found,) = read([FINE], outputs, columns=(2, 0))
    assert found.type_index == 0
    assert len(found.probabilities) == 2


def test_votes_of_one_tile_for_one_defect_are_one_candidate() -> None:
    outputs = silence(1)
    outputs["presence"][0, [5, 6]] = [1.0, 3.0]  # neighbours at (48, 48) and (80, 48)
    outputs["box"][0, 5] = [0.0, 0.5, 1.0, 0.5]  # both draw x 48..80
    outputs["box"][0, 6] = [1.0, 0.5, 0.0, 0.5]
    (found,) = read([FINE], outputs)
    assert found.presence == pytest.approx(1 / (1 + np.exp(-3.0)))


def test_an_empty_or_inverted_vote_is_no_candidate() -> None:
    outputs = silence(1)
    outputs["presence"][0, [0, 1, 2]] = 4.0
    outputs["box"][0, 0] = [0.5, 0.5, -0.5, 0.5]
    outputs["box"][0, 1] = [-1.0, 0.5, 0.5, 0.5]
    (found,) = read([FINE], outputs)
    assert found.box_xyxy == (64 + 64, 128, 64 + 96, 128 + 32)


def test_a_vote_below_the_limit_is_no_candidate() -> None:
    outputs = silence(1)
    outputs["presence"][0, 0] = np.log(0.049 / 0.951)
    outputs["presence"][0, 15] = np.log(0.051 / 0.949)
    assert len(read([FINE], outputs)) == 1


@pytest.mark.parametrize("name", ["presence", "type", "box"])
def test_numbers_that_are_not_finite_are_an_engine_error(name: str) -> None:
    outputs = silence(1)
    outputs[name].flat[3] = np.nan
    with pytest.raises(EngineError, match=f"dense head's {name}"):
        read([FINE], outputs)


def test_boxes_end_at_the_picture() -> None:
    assert clipped((-5.0, 630.0, 20.0, 650.0), (640, 640)) == (0.0, 630.0, 20.0, 640.0)
    corner = Tile(1, 1.0, 512, 512, (544, 544, 640, 640))
    outputs = silence(1)
    outputs["presence"][0, 15] = 4.0
    outputs["box"][0, 15] = 2.0
    (found,) = read([corner], outputs)
    assert found.box_xyxy == (560.0, 560.0, 640.0, 640.0)


@pytest.mark.parametrize(
    ("box", "tile", "cut"),
    [
        ((1.0, 50.0, 40.0, 90.0), FINE, True),  # left edge of the tile, the picture goes on
        ((50.0, 50.0, 128.0, 90.0), FINE, True),
        ((5.0, 5.0, 123.0, 123.0), FINE, False),
        ((0.0, 0.0, 40.0, 40.0), COARSE, False),  # the picture's own corner
        ((90.0, 90.0, 128.0, 110.0), COARSE, True),
        ((90.0, 90.0, 128.0, 128.0), Tile(1, 1.0, 512, 512, (544, 544, 640, 640)), False),
    ],
)
def test_a_box_is_cut_where_the_tile_ends_and_the_picture_does_not(box: Box, tile: Tile, cut: bool) -> None:
    assert is_cut(box, tile, 128, (640, 640)) is cut


def test_overlap_is_over_the_union_and_over_the_first() -> None:
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx((1 / 3, 1 / 2))
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == (0.0, 0.0)
    assert overlap((2, 2, 4, 4), (0, 0, 10, 10)) == pytest.approx((0.04, 1.0))


def test_thinning_keeps_the_best_and_neighbours() -> None:
    near, best, far = (
        candidate((0, 0, 30, 30), 0.5),
        candidate((3, 3, 33, 33), 0.9),
        candidate((25, 0, 55, 30), 0.4),
    )
    assert thinned([near, best, far], 0.3) == [best, far]


def test_a_cut_box_gives_way_to_a_whole_one_however_sure_it_is() -> None:
    whole, cut = candidate((0, 0, 100, 40), 0.6), candidate((0, 0, 30, 40), 0.95, cut=True)
    assert thinned([cut, whole], 0.3) == [whole]
    assert thinned([cut], 0.3) == [cut]


def test_a_fine_box_comes_before_a_coarse_one_that_holds_it_or_lies_in_it() -> None:
    fine = candidate((0, 0, 60, 60), 0.5)
    coarse = dataclasses.replace(candidate((4, 4, 56, 20), 0.9), level=2)
    assert thinned([coarse, fine], 0.3) == [fine]
    apart = dataclasses.replace(coarse, box_xyxy=(50, 50, 130, 90))
    assert thinned([apart, fine], 0.3) == [apart, fine]

"""Ownership, levels and the joining of the two detectors."""

from __future__ import annotations

import dataclasses

import pytest

from orinspect.runtime.infer.candidates import Candidate
from orinspect.runtime.infer.fuse import OwnedPlaces, fused, owned, strongest_unreported, tiles_to_decode
from orinspect.runtime.infer.pictures.tiles import Box, Tile, tile_grid, tiles_on_boxes
from orinspect.runtime.recipe import Thresholds

TYPES = ("open", "short")
LIMITS = Thresholds(presence=0.4, dense_alone=0.8, words=0.5, both=0.35, nms_iou=0.3)
GRID = tile_grid(640, 640, 128, 64, (1, 2))


def around(x: float, y: float, side: float = 36.0) -> Box:
    return (x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def candidate(box: Box, *, tile: int = 0, p: float = 0.9, kind: int = 0, cut: bool = False) -> Candidate:
    return Candidate(box, tile, p, tuple(p if index == kind else 0.0 for index in range(2)), cut)


def seen_by(box: Box, tiles: tuple[Tile, ...] = GRID) -> list[int]:
    """Every tile that holds the box whole."""
    x1, y1, x2, y2 = box
    return [
        index
        for index, tile in enumerate(tiles)
        if tile.left * tile.scale <= x1
        and tile.top * tile.scale <= y1
        and x2 <= (tile.left + 128) * tile.scale
        and y2 <= (tile.top + 128) * tile.scale
    ]


def kept(candidates: list[Candidate]) -> list[Candidate]:
    return owned(candidates, GRID, tile_px=128, stride_px=64, slack_px=4.0, nms_iou=0.3)


@pytest.mark.parametrize("x", [20.0, 95.9, 96.0, 300.0, 621.0])
@pytest.mark.parametrize("y", [20.0, 160.0, 333.3, 621.0])
def test_what_many_tiles_see_is_reported_once_by_a_fine_tile(x: float, y: float) -> None:
    box = around(x, y)
    tiles = seen_by(box)
    assert len(tiles) > 1
    (found,) = kept([candidate(box, tile=tile) for tile in tiles])
    tile = GRID[found.tile]
    assert tile.level == 1
    assert tiles_to_decode([found]) == [found.tile]


def test_a_centre_that_two_tiles_each_put_on_the_others_side_is_not_lost() -> None:
    left, right = (index for index, tile in enumerate(GRID[:2]))
    edge = GRID[0].owned_xyxy[2]
    found = kept([candidate(around(edge + 1, 40), tile=left), candidate(around(edge - 1, 40), tile=right)])
    assert len(found) == 1


def test_a_tile_does_not_speak_for_what_lies_far_outside_its_own() -> None:
    assert kept([candidate(around(GRID[0].owned_xyxy[2] + 12, 40), tile=0)]) == []


def test_a_small_box_of_a_coarse_tile_is_left_to_the_fine_ones() -> None:
    coarse = next(index for index, tile in enumerate(GRID) if tile.level == 2)
    assert kept([candidate(around(60, 60, 40), tile=coarse)]) == []


def test_a_box_that_fits_no_fine_tile_comes_from_the_coarse_one() -> None:
    box = around(330, 330, 124)
    coarse = [index for index in seen_by(box) if GRID[index].level == 2]
    fine = next(
        i
        for i, tile in enumerate(GRID)
        if tile.level == 1
        and tile.owned_xyxy[0] <= 330 < tile.owned_xyxy[2]
        and tile.owned_xyxy[1] <= 330 < tile.owned_xyxy[3]
    )
    left, top = GRID[fine].left, GRID[fine].top
    pieces = candidate((left + 8.0, top + 8.0, left + 128.0, top + 128.0), tile=fine, p=0.99, cut=True)
    found = kept([pieces, *(candidate(box, tile=index, p=0.8) for index in coarse)])
    assert [one.box_xyxy for one in found] == [box]
    assert kept([pieces]) == [pieces]  # better in pieces than not at all


def test_both_detectors_are_a_weighted_mean_and_a_mean_box() -> None:
    dense, words = candidate((10, 10, 50, 50), p=0.75), candidate((14, 10, 54, 50), p=0.5)
    (found,) = fused([dense], [words], TYPES, LIMITS)
    assert found.confidence == pytest.approx(0.35 * 0.75 + 0.65 * 0.5)
    assert (found.type, found.bbox_xyxy, found.detector) == ("open", (12, 10, 52, 50), "both")
    assert found.reason is None


def test_the_type_is_the_most_probable_one_of_both() -> None:
    dense = Candidate((10, 10, 50, 50), 0, 0.9, (0.5, 0.4))
    words = candidate((10, 10, 50, 50), p=0.7, kind=1)
    (found,) = fused([dense], [words], TYPES, LIMITS)
    assert found.type == "short"
    assert found.confidence == pytest.approx(0.35 * 0.4 + 0.65 * 0.7)
    assert found.reason == "the dense head says open, the words say short"


def test_close_centres_are_the_same_defect_whatever_the_sizes() -> None:
    (found,) = fused([candidate(around(100, 100, 20))], [candidate(around(102, 100, 40))], TYPES, LIMITS)
    assert found.detector == "both"
    two = fused([candidate(around(100, 100, 20))], [candidate(around(115, 100, 20))], TYPES, LIMITS)
    assert [one.detector for one in two] == ["dense", "words"]


def test_each_detector_alone_needs_its_own_threshold_and_says_so() -> None:
    dense = [candidate(around(100, 100), p=0.81), candidate(around(200, 100), p=0.79)]
    words = [candidate(around(300, 100), p=0.51), candidate(around(400, 100), p=0.49)]
    assert [(one.detector, one.reason) for one in fused(dense, words, TYPES, LIMITS)] == [
        ("dense", "the words do not name it"),
        ("words", "the dense head does not see it"),
    ]


def test_dense_alone_goes_by_presence_not_by_the_surest_type() -> None:
    """An unmistakable defect of an unclear type must not vanish."""
    unclear = Candidate(around(100, 100), 0, 0.9, (0.45, 0.45))
    (found,) = fused([unclear], [], TYPES, LIMITS)
    assert found.confidence == 0.45


def test_two_weak_views_make_one_defect() -> None:
    dense, words = candidate(around(100, 100), p=0.4), candidate(around(100, 100), p=0.4)
    (found,) = fused([dense], [words], TYPES, LIMITS)
    assert found.confidence == pytest.approx(0.4)
    weaker = dataclasses.replace(dense, presence=0.1, probabilities=(0.1, 0.0))
    assert fused([weaker], [words], TYPES, LIMITS) == ()


def test_one_detector_that_runs_alone_has_nothing_to_explain() -> None:
    (found,) = fused([candidate(around(9, 9, 6))], [], TYPES, LIMITS, detectors=("dense",))
    assert found.reason is None


def test_a_cut_box_gives_its_place_to_the_whole_one() -> None:
    dense, words = candidate((10, 10, 50, 50)), candidate((10, 10, 40, 50), cut=True)
    assert fused([dense], [words], TYPES, LIMITS)[0].bbox_xyxy == (10, 10, 50, 50)


def test_matching_is_one_to_one_and_takes_the_closest() -> None:
    dense = [candidate(around(100, 100)), candidate(around(107, 100))]
    found = fused(dense, [candidate(around(106, 100))], TYPES, LIMITS)
    assert [(one.detector, one.bbox_xyxy[0]) for one in found] == [("dense", 82.0), ("both", 88.5)]


def test_defects_stand_in_reading_order() -> None:
    boxes = [around(300, 40), around(100, 40), around(50, 20)]
    found = fused([candidate(box) for box in boxes], [], TYPES, LIMITS)
    assert [one.bbox_xyxy for one in found] == [boxes[2], boxes[1], boxes[0]]


def test_a_quarrel_about_the_type_never_deletes_what_one_detector_reports_alone() -> None:
    """Two detectors that agree on the place and not on the type must not make a pass."""
    shipped = Thresholds()
    sure = Candidate(around(100, 100), 0, 0.99, (0.98, 0.01))
    (found,) = fused([sure], [candidate(around(100, 100), p=0.02, kind=1)], TYPES, shipped)
    assert (found.type, found.detector) == ("open", "dense") and found.reason is not None
    doubtful = Candidate(around(100, 100), 0, 0.3, (0.3, 0.0))
    (found,) = fused([doubtful], [candidate(around(100, 100), p=0.53, kind=1)], TYPES, shipped)
    assert found.type == "short" and found.reason is not None


def test_a_small_box_of_a_coarse_tile_counts_where_no_finer_tile_looks() -> None:
    coarse = Tile(2.0, 2.0, 0, 0, (32, 32, 96, 96))
    fine = Tile(1.0, 1.0, 64, 64, (96, 96, 160, 160))
    small = candidate(around(128, 128, 20), tile=0)
    alone = owned([small], [coarse], tile_px=128, stride_px=64, slack_px=4.0, nms_iou=0.3)
    beside = owned([small], [coarse, fine], tile_px=128, stride_px=64, slack_px=4.0, nms_iou=0.3)
    assert (alone, beside) == ([small], [])


def test_places_are_found_as_by_asking_every_tile() -> None:
    """Tiles on boxes overlap and have any corner; those of a grid meet at their edges."""
    boxes = [(100, 40, 130, 60), (118, 44, 150, 70), (300, 310, 420, 330)]
    tiles = [*tiles_on_boxes(boxes, 128, 64, (0.5, 1.0)), *tile_grid(200, 150, 128, 64, (1.0, 2.0))]
    places = OwnedPlaces(tiles)
    points = [(x / 2, y / 2) for x in range(-80, 900, 7) for y in range(-80, 760, 11)]
    inside = 0
    for x, y in points:
        owners = [
            tile
            for tile in tiles
            if tile.owned_xyxy[0] <= x / tile.scale < tile.owned_xyxy[2]
            and tile.owned_xyxy[1] <= y / tile.scale < tile.owned_xyxy[3]
        ]
        assert places.hold((x, y)) == bool(owners)
        inside += bool(owners)
    assert 0 < inside < len(points)
    assert not OwnedPlaces([]).hold((0.0, 0.0))


def test_a_reported_defect_hides_nothing_that_was_nearly_reported_beside_it() -> None:
    here, beside = around(50, 50), around(120, 50)
    dense = [candidate(here, p=0.95), candidate(beside, p=0.7, kind=1)]
    words = [candidate(around(54, 50), p=0.9)]
    defects = fused(dense, words, TYPES, LIMITS)
    assert [defect.type for defect in defects] == ["open"]
    assert strongest_unreported([*dense, *words], defects, LIMITS.nms_iou) == 0.7
    assert strongest_unreported([dense[0], *words], defects, LIMITS.nms_iou) == 0.0
    assert strongest_unreported(dense, (), LIMITS.nms_iou) == 0.95

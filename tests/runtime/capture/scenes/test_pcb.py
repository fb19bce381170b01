"""Simulated boards: repeatable, and every defect is what its name says, measured on the pictures alone."""

from __future__ import annotations

import time
from collections import Counter
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orinspect.runtime.capture.scenes import DEFECT_TYPES, STYLES, Scene, SceneDefect, Style, pcb_scene

SEEDS = range(200, 218)
SIZE_PX = 320  # a quarter of a board, crowded: the same generator, a quarter of the time
Copper = npt.NDArray[np.bool_]


@cache
def board(seed: int, style: Style = "binary") -> Scene:
    return pcb_scene(seed, style=style, size_px=SIZE_PX, defects=6)


@cache
def clean_part(seed: int) -> Copper:
    """Copper of the part with every defect undone: the masks are exactly the changed pixels."""
    scene = board(seed)
    copper = scene.image == 0
    for defect in scene.defects:
        within(copper, defect)[defect.mask] ^= True
    return np.asarray(copper, np.bool_)


def within(picture: Copper, defect: SceneDefect, margin: int = 0) -> Copper:
    x1, y1, x2, y2 = defect.bbox_xyxy
    return picture[max(y1 - margin, 0):y2 + margin, max(x1 - margin, 0):x2 + margin]


def pieces(copper: Copper, connectivity: int = 8) -> int:
    """Connected pieces of 8 pixels and more: dust is not a conductor."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(copper.astype(np.uint8), connectivity=connectivity)
    return int((stats[1:, cv2.CC_STAT_AREA] >= 8).sum())


def cases(kind: str) -> list[tuple[Copper, Copper, SceneDefect]]:
    """Whole board without defects, the same with this one defect, and the defect; all of one type."""
    found = []
    for seed in SEEDS:
        for defect in board(seed).defects:
            if defect.type == kind:
                after = clean_part(seed).copy()
                within(after, defect)[defect.mask] ^= True
                found.append((clean_part(seed), after, defect))
    assert len(found) >= 5, f"only {len(found)} of type {kind} on {len(SEEDS)} boards"
    return found


@pytest.mark.parametrize("style", STYLES)
def test_the_same_seed_gives_the_same_bits(style: Style) -> None:
    first, second = board(7, style), pcb_scene(7, style=style, size_px=SIZE_PX, defects=6)
    assert first.image.tobytes() == second.image.tobytes()
    assert first.template.tobytes() == second.template.tobytes()
    assert [d.bbox_xyxy for d in first.defects] == [d.bbox_xyxy for d in second.defects]
    assert all((a.mask == b.mask).all() for a, b in zip(first.defects, second.defects, strict=True))


def test_another_seed_gives_another_board() -> None:
    assert board(7).template.tobytes() != board(8).template.tobytes()


def test_an_open_parts_a_conductor() -> None:
    for clean, damaged, defect in cases("open"):
        before, after = within(clean, defect, 10), within(damaged, defect, 10)
        assert not (after & ~before).any()
        assert pieces(after) > pieces(before)


def test_a_short_joins_two_conductors_of_the_board() -> None:
    for clean, damaged, _ in cases("short"):
        assert not (clean & ~damaged).any()
        assert pieces(damaged, 4) < pieces(clean, 4)


def test_a_mousebite_and_a_spur_leave_all_connections_as_they_were() -> None:
    for kind, gains in (("mousebite", False), ("spur", True)):
        for clean, damaged, defect in cases(kind):
            assert (damaged & ~clean).any() == gains
            assert (clean & ~damaged).any() != gains
            assert pieces(damaged) == pieces(clean)
            before, after = within(clean, defect, 10), within(damaged, defect, 10)
            assert pieces(~before, 4) == pieces(~after, 4), "a bite opens no hole and a spur encloses nothing"


def test_an_extra_copper_is_an_island() -> None:
    for clean, damaged, defect in cases("copper"):
        assert pieces(damaged) == pieces(clean) + 1
        grown = cv2.dilate((damaged & ~clean).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert not (grown & clean & within_picture(defect, clean)).any(), "an island touches no conductor"


def within_picture(defect: SceneDefect, picture: Copper) -> Copper:
    """True in the defect's box and two pixels around it."""
    area = np.zeros_like(picture)
    within(area, defect, 2)[:] = True
    return area


def test_a_pin_hole_is_background_with_copper_all_around() -> None:
    for clean, damaged, _ in cases("pin-hole"):
        assert pieces(~damaged, 4) == pieces(~clean, 4) + 1
        assert pieces(damaged) == pieces(clean)


@pytest.mark.parametrize("style", STYLES)
def test_the_box_is_tight_around_the_mask(style: Style) -> None:
    for seed in SEEDS[:8]:
        scene = board(seed, style)
        for defect in scene.defects:
            x1, y1, x2, y2 = defect.bbox_xyxy
            assert 0 <= x1 < x2 <= SIZE_PX and 0 <= y1 < y2 <= SIZE_PX
            assert defect.mask.shape == (y2 - y1, x2 - x1)
            for side in (defect.mask[0], defect.mask[-1], defect.mask[:, 0], defect.mask[:, -1]):
                assert side.any()


def test_defects_keep_a_gap() -> None:
    for seed in SEEDS:
        boxes = [defect.bbox_xyxy for defect in board(seed).defects]
        for index, a in enumerate(boxes):
            for b in boxes[:index]:
                assert max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3]) >= 11


def test_the_template_has_none_of_the_defects() -> None:
    for seed in SEEDS[:8]:
        # Without misregistration template and clean part differ by edge noise only: nothing 5 x 5 remains.
        still = pcb_scene(seed, misregistration_px=0.0, size_px=SIZE_PX, defects=6)
        copper = still.image == 0
        for defect in still.defects:
            within(copper, defect)[defect.mask] ^= True
        differs = (copper ^ (still.template == 0)).astype(np.uint8)
        assert not cv2.erode(differs, np.ones((5, 5), np.uint8)).any()


@pytest.mark.parametrize("bound_px", [0.0, 4.0])
def test_misregistration_stays_within_its_bound(bound_px: float) -> None:
    reach = int(bound_px) + 3  # three pixels for blur, threshold and exposure of either picture
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    largest = 0.0
    for seed in SEEDS[:8]:
        scene = pcb_scene(seed, misregistration_px=bound_px, defects=0, size_px=SIZE_PX)
        largest = max(largest, *map(abs, scene.shift_xy))
        # The median takes the dust away.
        part, template = (cv2.medianBlur(255 - picture, 5) for picture in (scene.image, scene.template))
        # Copper deep inside the one is copper on the other; outside of the picture counts as background.
        for one, other in ((part, template), (template, part)):
            deep = cv2.erode(one, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
            assert not (deep > other).any()
    assert largest <= bound_px
    assert largest > 0.5 * bound_px or bound_px == 0.0


def test_the_shift_says_where_the_template_lies() -> None:
    compared = 0
    for seed in SEEDS:
        scene = pcb_scene(seed, defects=0, size_px=SIZE_PX, misregistration_px=8.0)
        x, y = (round(value) for value in scene.shift_xy)
        if not 0.05 < (scene.image == 0).mean() < 0.9 or min(abs(x), abs(y)) < 2:
            continue  # too little on it, or hardly shifted
        part = scene.image[40:-40, 40:-40]
        end = SIZE_PX - 40
        unmoved, back, further = (scene.template[40 + k * y:end + k * y, 40 + k * x:end + k * x]
                                  for k in (0, 1, -1))
        assert (back != part).mean() < (unmoved != part).mean() < (further != part).mean()
        compared += 1
    assert compared >= 3


def test_boards_carry_what_was_asked_for() -> None:
    assert pcb_scene(3, defects=0).defects == ()
    counts = [len(board(seed).defects) for seed in SEEDS]
    assert max(counts) <= 6 and sum(counts) >= 4 * len(counts)
    assert 3 <= len(pcb_scene(6).defects) <= 12
    kinds = Counter(defect.type for seed in SEEDS for defect in board(seed).defects)
    assert set(kinds) == set(DEFECT_TYPES)


def test_sizes_are_those_of_real_boards() -> None:
    longest = [max(d.bbox_xyxy[2] - d.bbox_xyxy[0], d.bbox_xyxy[3] - d.bbox_xyxy[1])
               for seed in SEEDS for d in board(seed).defects]
    assert 13 <= np.median(longest) <= 22
    assert 27 <= np.percentile(longest, 90) <= 50
    assert min(longest) < 10 and max(longest) > 45


def test_a_grey_picture_is_grey_and_shows_the_same_copper() -> None:
    grey, binary = board(5, "grey"), board(5)
    assert len(np.unique(grey.image)) > 50 and set(np.unique(binary.image)) == {0, 255}
    dark = grey.image < (int(grey.image.min()) + int(grey.image.max())) / 2
    assert (dark == (binary.image == 0)).mean() > 0.98
    assert [d.type for d in grey.defects]


@pytest.mark.parametrize("size_px", [128, 201])
def test_other_sizes(size_px: int) -> None:
    scene = pcb_scene(2, size_px=size_px, defects=2)
    assert scene.image.shape == scene.template.shape == (size_px, size_px)
    assert scene.image.dtype == np.uint8


@pytest.mark.parametrize("wrong", [{"size_px": 127}, {"style": "colour"}, {"defects": -1},
                                   {"misregistration_px": -1.0}, {"misregistration_px": 13.0}])
def test_impossible_scenes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        pcb_scene(1, **wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_sixty_tiles_a_second_on_one_core() -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        started = time.process_time()  # of this process: other work on the machine does not count
        for seed in range(10):
            pcb_scene(seed)
        tiles_per_s = 10 * 25 / (time.process_time() - started)
    finally:
        cv2.setNumThreads(threads)
    assert tiles_per_s >= 60

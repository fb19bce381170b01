"""Shifts that are known because the test made them."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orinspect.runtime.errors import PictureError
from orinspect.runtime.infer.pictures.register import (
    JOIN_PX,
    SHIFT_COST,
    WHOLE_PX,
    clusters_of_differences,
    fitting_corner,
    light_between,
    outside_band,
    relit,
    seen_after_shift,
    shift_between,
    window_at,
)
from orinspect.runtime.infer.pictures.tiles import shifted

Picture = npt.NDArray[np.uint8]


def blobs(height: int, width: int, seed: int = 0, spot_px: float = 4) -> Picture:
    """Smooth random spots, black and white: nothing in it repeats."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    return np.where(cv2.GaussianBlur(noise, (0, 0), spot_px) > 0, 255, 0).astype(np.uint8)


def best_by_hand(window: Picture, part: Picture) -> tuple[int, int]:
    """(dx, dy) of the least mean square plus the cost of the way, over every shift."""
    reach = (window.shape[0] - part.shape[0]) // 2
    size, scores = part.shape[0], {}
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            under = window[reach + dy : reach + dy + size, reach + dx : reach + dx + size].astype(np.int64)
            scores[dx, dy] = ((under - part) ** 2).mean() + SHIFT_COST * np.hypot(dx, dy)
    return min(scores, key=scores.__getitem__)


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (3, -2), (-6, 6), (0, 5)])
def test_a_moved_picture_is_found(dx: int, dy: int) -> None:
    wide = blobs(220, 200)
    template, part = wide[10:210, 10:190], wide[10 + dy : 210 + dy, 10 + dx : 190 + dx]
    assert shift_between(template, part, 6) == (dx, dy)


def test_a_defect_does_not_move_its_tile() -> None:
    wide = blobs(200, 200, seed=1)
    part = wide[33:161, 42:170].copy()
    cv2.circle(part, (60, 60), 12, 255, -1)
    fitted = window_at(wide, *fitting_corner(wide, part, left=40, top=36, max_shift_px=4), 128)
    assert (fitted == wide[33:161, 42:170]).all()


def test_the_search_that_stops_early_agrees_with_every_shift() -> None:
    rng = np.random.default_rng(2)
    for seed in range(6):
        wide = blobs(60, 60, seed)
        part = wide[8:52, 10:54].astype(np.int64) + rng.integers(-40, 40, (44, 44))
        noisy = np.clip(part, 0, 255).astype(np.uint8)
        window = wide[4:56, 4:56]
        dx, dy = best_by_hand(window, noisy)
        fitted = window_at(wide, *fitting_corner(wide, noisy, left=8, top=8, max_shift_px=4), 44)
        assert (fitted == window[4 + dy : 48 + dy, 4 + dx : 48 + dx]).all()


def test_flat_and_repeating_tiles_stay_where_they_are() -> None:
    flat = np.full((64, 64), 90, np.uint8)
    assert shift_between(flat, flat + np.uint8(20), 6) == (0, 0)
    stripes = np.tile(np.repeat(np.array([0, 255], np.uint8), 3), (66, 11))
    assert shift_between(stripes, stripes, 6) == (0, 0)


def test_a_picture_too_small_to_register_stays_and_other_sizes_are_refused() -> None:
    small = blobs(20, 20)
    assert shift_between(small, small[:, ::-1].copy(), 6) == (0, 0)
    with pytest.raises(PictureError, match="differ in size"):
        shift_between(blobs(40, 40), blobs(40, 44), 6)


def test_a_window_beyond_the_edge_repeats_the_edge() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    window = window_at(picture, -2, -1, 5)
    assert window.tolist() == [[0, 0, 0, 1, 2]] * 2 + [[4, 4, 4, 5, 6]] + [[8, 8, 8, 9, 10]] * 2
    with pytest.raises(PictureError, match="outside a 4x3 picture"):
        window_at(picture, 4, 0, 2)


def test_an_edge_that_is_one_pixel_off_is_no_difference() -> None:
    template = np.zeros((64, 64), np.uint8)
    template[20:40, 10:50] = 255
    near, far = np.roll(template, 1, axis=1), np.roll(template, 3, axis=1)
    assert outside_band(template, near).max() == 0
    assert outside_band(template, far).max() == 255


def clusters_by_hand(
    template: Picture, part: Picture, difference: float, least: int
) -> list[tuple[int, ...]]:
    """Points that differ, joined where they lie within JOIN_PX of each other, one after the other."""
    points = [(int(x), int(y)) for y, x in np.argwhere(outside_band(template, part) > difference)]
    boxes = []
    while points:
        group, rest = [points.pop()], points
        for x, y in group:  # grows while it is walked
            near = [(a, b) for a, b in rest if max(abs(a - x), abs(b - y)) <= JOIN_PX]
            rest = [point for point in rest if point not in near]
            group += near
        points = rest
        if len(group) >= least:
            xs, ys = zip(*group, strict=True)
            boxes.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    return sorted(boxes, key=lambda box: (box[1], box[0]))


@pytest.mark.parametrize("spots", [3, 40])  # a few cells differ, or nearly all of them
def test_clusters_are_what_differs_beyond_the_band(spots: int) -> None:
    template = blobs(230, 330)
    part = template.copy()
    rng = np.random.default_rng(spots)
    for x, y in rng.integers(0, (330, 230), (spots, 2)).tolist():
        side = int(rng.integers(1, 12))
        part[y : y + side, x : x + side] = 255 - part[y : y + side, x : x + side]
    for least in (1, 4):
        found = clusters_of_differences(template, part, 100.0, least, 0)
        assert found == clusters_by_hand(template, part, 100.0, least)
    assert clusters_of_differences(template, template, 100.0, 1, 4) == []


def test_every_cell_is_registered_by_itself() -> None:
    """The left half lies 2 px to the right, the right half 2 px to the left: no cell differs in the end."""
    wide = blobs(256, 520)
    template = wide[:, 4:-4]
    part = np.hstack([wide[:, 2:258], wide[:, 262:518]])
    assert (outside_band(template, part) > 100).sum() > 500
    boxes = clusters_of_differences(template, part, 100.0, 3, 4)
    assert [box for box in boxes if 10 < box[0] < box[2] < 220 or 292 < box[0] < box[2] < 502] == []


def test_a_large_picture_is_asked_in_bands() -> None:
    whole = blobs(1500, 1400, 7)
    for dx, dy in ((0, 0), (5, -3), (-6, 6)):
        part = whole[20 : 20 + 1400, 20 : 20 + 1300]
        template = whole[20 - dy : 20 - dy + 1400, 20 - dx : 20 - dx + 1300]
        assert part.size > WHOLE_PX
        assert shift_between(template, part, 6) == (dx, dy)


@pytest.mark.parametrize("light", [0.3, 0.7, 1.0, 1.2])
def test_light_is_found_whatever_else_differs(light: float) -> None:
    """Wider copper, a shift, noise and a defect do not change it: most of a part is flat."""
    whole = np.where(blobs(400, 500) > 0, 190, 60).astype(np.uint8)
    template = np.asarray(cv2.erode(whole, np.ones((3, 3), np.uint8)), np.uint8)
    noise = np.random.default_rng(1).normal(0, 4, whole.shape)
    part = np.clip(np.roll(whole, (2, -3), (0, 1)) * light + noise, 0, 255).astype(np.uint8)
    part[100:200, 100:220] = 255
    assert light_between(template, part) == pytest.approx(light, rel=0.03)
    assert light_between(part, template) == pytest.approx(1 / light, rel=0.03)


def test_a_scan_of_black_and_white_has_one_light() -> None:
    template = blobs(300, 300)
    part = np.asarray(cv2.erode(np.roll(template, 3, 1), np.ones((5, 5), np.uint8)), np.uint8)
    assert light_between(template, part) == 1.0
    assert light_between(np.zeros_like(template), part) == 1.0


def test_a_picture_is_shown_in_another_light() -> None:
    picture = np.array([[0, 10, 100, 200]], np.uint8)
    assert relit(picture, 0.5).tolist() == [[0, 20, 200, 255]]
    assert relit(picture, 2.0).tolist() == [[0, 5, 50, 100]]
    assert relit(np.repeat(picture[..., None], 3, 2), 0.5).shape == (1, 4, 3)
    assert relit(picture, 0.0).max() == 255, "no light at all is no division by zero"


@pytest.mark.parametrize(("dx", "dy"), [(5, 0), (0, 4), (-6, 3), (0, 0)])
def test_what_a_moved_template_never_saw_is_no_difference(dx: int, dy: int) -> None:
    """Part and template are windows of one board; the part shows a strip that the template has not."""
    board = blobs(300, 340)
    template = board[20:276, 20:316]
    part = board[20 + dy : 276 + dy, 20 + dx : 316 + dx].copy()
    registered, seen = shifted(template, dx, dy), seen_after_shift(256, 296, dx, dy)
    assert clusters_of_differences(registered, part, 100.0, 3, 0, seen) == []
    assert (seen == 0).sum() == 256 * 296 - (256 - abs(dy)) * (296 - abs(dx))
    part[120:129, 140:149] = 255 - part[120:129, 140:149]
    assert clusters_of_differences(registered, part, 100.0, 3, 0, seen) != []


def test_without_a_shift_a_defect_at_the_very_edge_is_a_difference() -> None:
    template = np.zeros((128, 128), np.uint8)
    part = template.copy()
    part[60:70, :3] = 255
    part[-2:, 20:30] = 255
    boxes = clusters_of_differences(template, part, 100.0, 3, 4)
    assert len(boxes) == 2


@pytest.mark.parametrize("seed", [4, 7, 24, 27, 40])
def test_a_cell_at_the_rim_is_fitted_by_what_both_show(seed: int) -> None:
    """The whole is registered to within 2 px, the rest is left to the cells; the rim shows unseen board.

    Large spots: a cell holds little but one outline, and the repeated edge would decide where it lies.
    """
    rng = np.random.default_rng(seed)
    board = blobs(300, 340, seed, spot_px=20)
    dx, dy = (int(value) for value in rng.integers(-6, 7, 2))
    template = board[20:276, 20:316]
    part = board[20 + dy : 276 + dy, 20 + dx : 316 + dx]
    left_x, left_y = (int(np.sign(each)) * min(abs(each), 2) for each in (dx, dy))
    near = dx - left_x, dy - left_y
    registered, seen = shifted(template, *near), seen_after_shift(256, 296, *near)
    assert clusters_of_differences(registered, part, 100.0, 3, 4, seen) == []

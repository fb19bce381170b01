"""The truth of frames: each check finds its fault, and leaves alone what is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from orinspect.runtime.capture.frame import Frame, FrameFault, Picture
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.capture.truth import TruthCheck, place_beside
from orinspect.runtime.config import TruthConfig
from orinspect.runtime.errors import PictureError

SECOND_NS = 1_000_000_000


def scene(seed: int = 3) -> Picture:
    """A board in grey levels, so that light and edges mean something."""
    return pcb_scene(seed, size_px=400, style="grey", defects=0).image


def frame(
    image: Picture, number: int, template: Picture | None = None, taken_s: float | None = None
) -> Frame:
    taken_ns = round((number if taken_s is None else taken_s) * SECOND_NS)
    return Frame(image, template, number, 1.0, taken_ns, "test")


def faults(
    config: TruthConfig, frames: list[Frame], is_live: bool = True, late_s: float = 0.0
) -> list[str | None]:
    """The fault names of the frames, each looked at `late_s` after it was taken."""
    now = [0]
    check = TruthCheck(config, is_live, lambda: now[0])
    found: list[str | None] = []
    for each in frames:
        now[0] = each.sequence * SECOND_NS + round(late_s * SECOND_NS)
        fault = check.checked(each).fault
        found.append(None if fault is None else fault.name)
    return found


def noisy(image: Picture, seed: int) -> Picture:
    noise = np.random.default_rng(seed).normal(0, 2, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def test_a_live_camera_that_repeats_its_picture_is_frozen_and_a_noisy_one_is_not() -> None:
    still = noisy(scene(), 1)
    frames = [frame(still, 1), frame(still.copy(), 2), frame(still.copy(), 3), frame(noisy(scene(), 2), 4)]
    assert faults(TruthConfig(), frames) == [None, "frozen", "frozen", None]
    assert faults(replace(TruthConfig(), frozen_frames=2), frames) == [None, None, "frozen", None]
    assert faults(replace(TruthConfig(), frozen_frames=0), frames) == [None] * 4
    assert faults(TruthConfig(), frames, is_live=False) == [None] * 4, "two files may be alike"


def test_one_pixel_of_difference_is_another_picture() -> None:
    first = scene()
    second = first.copy()
    second[200, 200] ^= 1
    assert faults(TruthConfig(), [frame(first, 1), frame(second, 2)]) == [None, None]


def test_a_time_that_stands_still_runs_back_or_is_long_ago_is_stale() -> None:
    pictures = [noisy(scene(), seed) for seed in range(4)]
    frames = [
        frame(picture, number, taken_s=taken)
        for number, (picture, taken) in enumerate(zip(pictures, (1.0, 1.0, 0.5, 4.0), strict=True), 1)
    ]
    assert faults(replace(TruthConfig(), stale_s=60.0), frames) == [None, "stale", "stale", None]
    assert faults(TruthConfig(), [frame(pictures[0], 1)], late_s=2.5) == ["stale"]
    assert faults(replace(TruthConfig(), stale_s=0.0), [frame(pictures[0], 1)], late_s=99) == [None]


def test_a_covered_lens_and_too_much_light_are_named() -> None:
    black, white = np.full((300, 300), 2, np.uint8), np.full((300, 300, 3), 254, np.uint8)
    half = np.full((300, 300), 2, np.uint8)
    half[:, :150] = 120
    frames = [frame(black, 1), frame(white, 2), frame(half, 3)]
    assert faults(TruthConfig(), frames, is_live=False) == ["black", "saturated", None]
    assert faults(replace(TruthConfig(), most_dark_share=0.0, most_glare_share=0.0), frames) == [None] * 3
    assert faults(replace(TruthConfig(), most_dark_share=0.4), frames) == ["black", "saturated", "black"]


def test_noise_hides_no_covered_lens_and_a_nearly_empty_board_is_no_fault() -> None:
    rng = np.random.default_rng(0)
    covered = np.clip(rng.normal(3, 4, (1200, 1600)), 0, 255).astype(np.uint8)
    glaring = np.clip(rng.normal(254, 4, (1200, 1600)), 0, 255).astype(np.uint8)
    board = np.full((640, 640), 255, np.uint8)
    board[300:312, 200:214] = 0  # 0.04 % of it is copper
    frames = [frame(covered, 1), frame(glaring, 2), frame(board, 3), frame(255 - board, 4)]
    assert faults(TruthConfig(), frames, is_live=False) == ["black", "saturated", None, None]


def test_a_picture_out_of_focus_is_blurred_by_the_limit() -> None:
    sharp = scene()
    soft = np.asarray(cv2.GaussianBlur(sharp, (0, 0), 4.0), np.uint8)
    config = replace(TruthConfig(), most_blur_px=2.5)
    assert faults(config, [frame(sharp, 1), frame(soft, 2)]) == [None, "blurred"]
    assert faults(TruthConfig(), [frame(soft, 1)]) == [None], "no limit, no check"


@pytest.mark.parametrize("move", [(0, 0), (12, -7), (-31, 22)])
def test_the_place_of_a_moved_picture_is_found(move: tuple[int, int]) -> None:
    whole = pcb_scene(5, size_px=640, style="grey", defects=0).image
    right, down = move
    reference = whole[60:560, 60:560].copy()
    moved = whole[60 - down : 560 - down, 60 - right : 560 - right].copy()
    place = place_beside(reference, noisy(moved, 1))
    assert (place.right_px, place.down_px) == pytest.approx(move, abs=1.0)
    assert place.likeness > 0.6


def test_a_camera_that_was_moved_and_one_that_looks_elsewhere_are_named(tmp_path: Path) -> None:
    whole = pcb_scene(5, size_px=640, style="grey", defects=0).image
    reference, moved = whole[60:560, 60:560].copy(), whole[60:560, 40:540].copy()
    elsewhere = pcb_scene(6, size_px=500, style="grey", defects=0).image
    assert cv2.imwrite(str(tmp_path / "reference.png"), reference)
    config = replace(TruthConfig(), most_moved_px=8.0, reference=tmp_path / "reference.png")
    frames = [frame(noisy(reference, 1), 1), frame(moved, 2), frame(elsewhere, 3)]
    assert faults(config, frames) == [None, "moved", "moved"]
    of_template = replace(config, reference=None)
    assert faults(of_template, [frame(moved, 1, template=reference)]) == ["moved"]
    assert faults(of_template, [frame(moved, 1)]) == [None], "nothing to compare with"
    check = TruthCheck(config, True, lambda: SECOND_NS)
    fault = check.checked(frame(moved, 1)).fault
    assert (
        fault is not None
        and "+20." in fault.why.replace("+19.9", "+20.")
        and "most_moved_px is 8" in fault.why
    )


def test_a_picture_of_another_size_than_the_reference_is_named() -> None:
    with pytest.raises(PictureError, match="400 x 400 pixels and the reference 200 x 200"):
        place_beside(scene()[:200, :200], scene())


def test_a_frame_keeps_the_fault_that_it_came_with_and_its_picture_with_a_new_one() -> None:
    broken = replace(frame(scene(), 1), fault=FrameFault("picture", "cut"))
    check = TruthCheck(TruthConfig(), True, lambda: 9 * SECOND_NS)
    assert check.checked(broken) is broken
    late = check.checked(frame(scene(), 1))
    assert late.fault is not None and late.fault.reason_code == "not_inspected.stale"
    np.testing.assert_array_equal(late.image, scene())

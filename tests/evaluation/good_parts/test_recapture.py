"""Another capture of a template: every disturbance does what it says, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from orinspect.evaluation.good_parts.recapture import (
    NEUTRAL,
    Recapture,
    captured_pair,
    draw_recapture,
    recaptured,
)
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.infer.pictures.register import shift_between

STILL = Recapture((0.0, 0.0), 0.0, 0.0, 1.0, 0.0, (0.0, 0.0), 0.0, 128.0, (0,))


def _grey() -> npt.NDArray[np.uint8]:
    return pcb_scene(5, size_px=256, style="grey").template


def test_nothing_done_is_the_template() -> None:
    for style in ("grey", "binary"):
        template = pcb_scene(5, size_px=256, style=style).template
        assert (recaptured(template, STILL) == template).all()


def test_a_capture_less_all_its_disturbances_is_the_template() -> None:
    capture = draw_recapture(1, 2, 3)
    for name in NEUTRAL:
        capture = capture.without(name)
    assert (recaptured(_grey(), capture) == _grey()).all()


def test_a_shift_is_what_registration_finds() -> None:
    template = _grey()
    moved = recaptured(template, replace(STILL, shift_xy=(3.0, -2.0)))
    assert shift_between(template, moved, 6) == (-3, 2)  # part[y, x] ~ template[y + dy, x + dx]


def test_light_and_noise_are_as_strong_as_they_say() -> None:
    flat = np.full((200, 200), 100, np.uint8)
    light = recaptured(flat, replace(STILL, gain=1.1, offset=5.0, gradient_xy=(20.0, 0.0)))
    assert float(light.mean()) == pytest.approx(115.0, abs=1.0)
    assert float(light[:, -1].mean()) - float(light[:, 0].mean()) == pytest.approx(20.0, abs=1.0)
    noisy = recaptured(flat, replace(STILL, noise_sigma=6.0))
    assert float(noisy.std()) == pytest.approx(6.0, rel=0.05)


def test_a_scan_stays_a_scan_and_its_edges_move_with_the_threshold() -> None:
    template = pcb_scene(6, size_px=256, style="binary").template
    blurred = replace(STILL, blur_sigma_px=1.0)
    dark, light = (recaptured(template, replace(blurred, threshold=limit)) for limit in (100.0, 156.0))
    assert set(np.unique(dark)) == {0, 255}
    assert (light <= dark).all() and (light != dark).any()  # a higher threshold leaves less that is white


def test_the_same_numbers_give_the_same_capture_and_others_another() -> None:
    template = _grey()
    assert draw_recapture(1, 2, 3) == draw_recapture(1, 2, 3) != draw_recapture(1, 2, 4)
    first, again = (recaptured(template, draw_recapture(1, 2, 3)) for _ in range(2))
    assert (first == again).all()
    assert (recaptured(template, draw_recapture(1, 2, 4)) != first).any()


def test_a_moved_part_shows_board_at_its_edge_and_no_repeated_row() -> None:
    template = _grey()
    golden, part = captured_pair(template, replace(STILL, shift_xy=(4.0, 0.0)))
    assert golden.shape == part.shape == (240, 240)
    assert (golden == template[8:-8, 8:-8]).all() and (part == template[8:-8, 4:-12]).all()
    with pytest.raises(ValueError, match="too small"):
        captured_pair(template[:16, :16], STILL)


def test_colour_pictures_are_captured_too() -> None:
    template = np.repeat(_grey()[:, :, None], 3, axis=2)
    assert recaptured(template, draw_recapture(7)).shape == template.shape

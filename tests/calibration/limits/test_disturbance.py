"""What is done to a picture is what was asked for, and its own quantity says so."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orinspect.calibration.limits.certified import QUANTITIES
from orinspect.calibration.limits.disturbance import (
    KINDS,
    Disturbance,
    disturbance_of,
    disturbed,
    glare,
    motion_kernel,
)
from orinspect.runtime.capture.quality import picture_quality
from orinspect.runtime.capture.scenes import pcb_scene


def drawn(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_moves_its_own_quantity_further_and_further(kind: str) -> None:
    scene = pcb_scene(31, style="grey", size_px=512)
    beside, _, side = QUANTITIES[kind]
    sign = -1.0 if side == "min" else 1.0
    values = [getattr(picture_quality(scene.image, scene.template), beside)]
    for strength in KINDS[kind][1]:
        picture = disturbed(scene.image, disturbance_of(kind, strength), drawn())
        values.append(getattr(picture_quality(picture, scene.template), beside))
    steps = np.diff([sign * value for value in values])
    # A white pixel gets no brighter, and the two weakest blurs are less than the template's own.
    assert (steps >= -0.02 * abs(values[-1])).all(), values
    assert sign * (values[-1] - values[0]) > 0.1 * abs(values[0]) + 0.02, values


def test_nothing_asked_for_is_the_same_picture() -> None:
    picture = np.full((20, 30), 77, np.uint8)
    assert disturbed(picture, Disturbance(), drawn()) is picture


def test_the_same_generator_gives_the_same_picture_in_grey_and_in_colour() -> None:
    scene = pcb_scene(32, style="grey", size_px=256)
    how = Disturbance(light=0.7, blur_px=1.0, motion_px=3.0, glare_share=0.02, noise=5.0)
    assert np.array_equal(disturbed(scene.image, how, drawn()), disturbed(scene.image, how, drawn()))
    colour = disturbed(np.repeat(scene.image[:, :, None], 3, 2), how, drawn())
    assert colour.shape == (256, 256, 3)
    # each channel has noise of its own, and the rest in common
    assert np.ptp(colour, axis=2).mean() > 2
    still = Disturbance(light=1.3, blur_px=1.0, glare_share=0.02)
    grey = disturbed(scene.image, still, drawn())
    assert (disturbed(np.repeat(scene.image[:, :, None], 3, 2), still, drawn()) == grey[:, :, None]).all()


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, 2.5])
@pytest.mark.parametrize("length", [2.0, 5.0, 12.0])
def test_motion_is_a_line_of_its_length(length: float, angle: float) -> None:
    kernel = motion_kernel(length, angle)
    assert kernel.sum() == pytest.approx(1.0, abs=1e-6)
    side = np.arange(len(kernel)) - len(kernel) // 2
    x, y = (kernel * side[None, :]).sum(), (kernel * side[:, None]).sum()
    assert abs(x) < 0.05 and abs(y) < 0.05, "the picture stays where it is"
    along = side[None, :] * math.cos(angle) + side[:, None] * math.sin(angle)
    across = side[:, None] * math.cos(angle) - side[None, :] * math.sin(angle)
    assert math.sqrt((kernel * along**2).sum()) == pytest.approx(length / math.sqrt(12), abs=0.25)
    assert math.sqrt((kernel * across**2).sum()) < 0.45


@pytest.mark.parametrize("share", [0.005, 0.05])
def test_a_gloss_makes_about_the_share_white_that_was_asked_for(share: float) -> None:
    added = [glare(600, 800, share, drawn(seed)) for seed in range(30)]
    whites = [np.mean(one + 128.0 >= 250.0) for one in added]
    assert np.median(whites) == pytest.approx(share, rel=0.15)
    assert max(whites) < 1.3 * share


def test_noise_grows_with_the_light_and_white_has_none() -> None:
    levels = np.repeat(np.array([20, 128, 230, 255], np.uint8), 40_000).reshape(4, 200, 200)
    how = Disturbance(noise=8.0)
    sigma = [float(disturbed(one, how, drawn()).std()) for one in levels]
    assert sigma[1] == pytest.approx(8.0, rel=0.05)
    assert sigma[0] < sigma[1] < sigma[2] + 1.0
    assert sigma[3] == 0.0


def test_less_light_is_darker_and_relatively_noisier() -> None:
    flat = np.full((200, 200), 200, np.uint8)
    half, tenth = (disturbed(flat, Disturbance(light=light), drawn()) for light in (0.5, 0.1))
    assert half.mean() == pytest.approx(100.0, abs=0.3) and tenth.mean() == pytest.approx(20.0, abs=0.3)
    assert tenth.std() / 20 > half.std() / 100 > 0.01

"""Each disturbance moves its own quantity, by about what was done, and the others little."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orinspect.runtime.capture.quality import MOST_BLUR_PX, Quality, picture_quality, within
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.errors import PictureError

Picture = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def pair() -> tuple[Picture, Picture]:
    scene = pcb_scene(21, style="grey", size_px=512)
    return scene.image, scene.template


def byte(levels: npt.ArrayLike) -> Picture:
    return np.asarray(np.clip(np.round(np.asarray(levels)), 0, 255), np.uint8)


def blurred(part: Picture, sigma: float) -> Picture:
    return byte(cv2.GaussianBlur(part.astype(np.float32), (0, 0), sigma))


def moved(part: Picture, pixels: int) -> Picture:
    kernel = np.zeros((pixels, pixels), np.float32)
    kernel[pixels // 2] = 1.0 / pixels
    return byte(cv2.filter2D(part.astype(np.float32), cv2.CV_32F, kernel))


def noisy(part: Picture, sigma: float) -> Picture:
    return byte(part + np.random.default_rng(5).normal(0.0, sigma, part.shape))


def glaring(part: Picture, radius: int) -> Picture:
    spot = part.copy()
    cv2.circle(spot, (200, 240), radius, (255,), -1)
    return spot


def test_blur_is_found_in_pixels(pair: tuple[Picture, Picture]) -> None:
    part, template = pair
    sharp = picture_quality(part, template)
    assert sharp.blur_px is not None
    for sigma in (1.0, 2.0, 3.0, 4.0):
        found = picture_quality(blurred(part, sigma), template)
        assert found.blur_px == pytest.approx(math.hypot(sharp.blur_px, sigma), rel=0.1)
        # everything else stays where it was; blur takes noise away, as it must
        assert found.light_ratio == pytest.approx(sharp.light_ratio, rel=0.02)
        assert found.contrast == pytest.approx(sharp.contrast, rel=0.12)
        assert found.noise_sigma <= sharp.noise_sigma + 0.1
        assert found.glare_share == found.dark_share == 0.0


def test_motion_in_one_direction_is_blur(pair: tuple[Picture, Picture]) -> None:
    part, template = pair
    for turned in (part, np.ascontiguousarray(part.T)):
        golden = template if turned is part else np.ascontiguousarray(template.T)
        added = [picture_quality(moved(turned, pixels), golden).blur_added_px for pixels in (1, 5, 9, 15, 21)]
        assert all(value is not None for value in added)
        assert sorted(added) == added, added  # type: ignore[type-var]
        assert added[2] > added[0] + 1.0  # type: ignore[operator]


def test_light_is_found_as_a_ratio_to_the_template(pair: tuple[Picture, Picture]) -> None:
    part, template = pair
    sharp = picture_quality(part, template)
    assert sharp.light_ratio is not None
    for light in (0.8, 0.5, 0.25):
        found = picture_quality(byte(part * light), template)
        assert found.light_ratio == pytest.approx(light * sharp.light_ratio, rel=0.03)
        assert found.brightness == pytest.approx(light * sharp.brightness, rel=0.03)
        assert found.contrast == pytest.approx(light * sharp.contrast, rel=0.05)
        assert found.blur_px == pytest.approx(sharp.blur_px, rel=0.05)
        assert found.glare_share == 0.0


def test_noise_is_found_in_grey_levels(pair: tuple[Picture, Picture]) -> None:
    part, template = pair
    sharp = picture_quality(part, template)
    for sigma in (3.0, 6.0, 12.0):
        found = picture_quality(noisy(part, sigma), template)
        assert found.noise_sigma == pytest.approx(math.hypot(sharp.noise_sigma, sigma), rel=0.1)
        assert found.light_ratio == pytest.approx(sharp.light_ratio, rel=0.02)
        assert found.blur_px == pytest.approx(sharp.blur_px, rel=0.15)
        assert found.contrast == pytest.approx(sharp.contrast, rel=0.25)


def test_glare_is_the_white_that_the_template_does_not_have(pair: tuple[Picture, Picture]) -> None:
    part, template = pair
    sharp = picture_quality(part, template)
    assert sharp.glare_share == 0.0
    for radius in (20, 40, 80):
        found = picture_quality(glaring(part, radius), template)
        assert found.glare_share == pytest.approx(math.pi * radius**2 / part.size, rel=0.1)
        assert found.brightness == pytest.approx(sharp.brightness, rel=0.02)
        assert found.contrast == pytest.approx(sharp.contrast, rel=0.06)
        assert found.blur_px == pytest.approx(sharp.blur_px, rel=0.1)
        assert found.noise_sigma == pytest.approx(sharp.noise_sigma, rel=0.1)
    assert picture_quality(glaring(part, 40), glaring(template, 40)).glare_share < 0.001
    assert picture_quality(byte(255.0 - glaring(part, 40)), byte(255.0 - template)).dark_share > 0.01


def test_a_scan_of_black_and_white_has_sane_numbers() -> None:
    scene = pcb_scene(22, size_px=512)
    alone, beside = picture_quality(scene.image), picture_quality(scene.image, scene.template)
    assert alone.glare_share == alone.dark_share == 0.0
    assert max(beside.glare_share, beside.dark_share) < 0.005
    assert alone.contrast == 255.0
    assert alone.noise_sigma < 1.0
    assert alone.blur_px is not None and alone.blur_px < 0.7
    assert beside.light_ratio == pytest.approx(1.0, abs=0.02)


def test_flat_small_and_colour_pictures(pair: tuple[Picture, Picture]) -> None:
    flat = picture_quality(np.full((64, 48), 90, np.uint8))
    assert (flat.brightness, flat.contrast, flat.blur_px, flat.noise_sigma) == (90.0, 0.0, None, 0.0)
    for shape in ((1, 1), (3, 200), (20, 20, 3)):
        assert picture_quality(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)).brightness == 0.0
    grey, template = pair
    colour = picture_quality(np.repeat(grey[:, :, None], 3, axis=2), np.repeat(template[:, :, None], 3, 2))
    assert colour == picture_quality(grey, template)
    with pytest.raises(PictureError, match="one scale"):
        picture_quality(grey, template[:-1])


def test_a_large_picture_is_measured_like_a_small_one(pair: tuple[Picture, Picture]) -> None:
    part, template = pair
    small = picture_quality(blurred(part, 2.0), template)
    large = picture_quality(np.tile(blurred(part, 2.0), (5, 6)), np.tile(template, (5, 6)))
    for name, value in dataclasses.asdict(small).items():
        assert getattr(large, name) == pytest.approx(value, rel=0.12, abs=0.08), name


def test_within_names_the_quantity_and_the_value() -> None:
    quality = Quality(80.0, 120.0, 3.417, 2.0, 0.0, 0.0)
    section = {
        "limits": {
            "brightness": {"min": 70.0},
            "blur_px": {"max": 2.1},
            "light_ratio": {"min": 0.5},  # has no template: not held against it
            "noise_sigma": {"min": None, "max": 1.5},
        }
    }
    assert within(quality, section) == ("blur_px 3.417 > 2.1", "noise_sigma 2 > 1.5")
    assert within(quality, None) == within(quality, {}) == ()
    assert within(dataclasses.replace(quality, blur_px=None, noise_sigma=0.0), section) == ()
    assert within(Quality(60.0, 0.0, MOST_BLUR_PX, 0.0, 0.0, 0.0), section) == (
        "brightness 60 < 70",
        "blur_px 8 > 2.1",
    )


@pytest.mark.parametrize("colour", [(), (3,)])
def test_a_covered_lens_and_too_much_light_are_no_scan(colour: tuple[int, ...]) -> None:
    dark, light = (picture_quality(np.full((240, 320, *colour), level, np.uint8)) for level in (2, 255))
    assert (dark.dark_share, dark.glare_share) == (1.0, 0.0)
    assert (light.dark_share, light.glare_share) == (0.0, 1.0)
    scan = np.zeros((240, 320, *colour), np.uint8)
    scan[:, 100:] = 255
    found = picture_quality(scan)
    assert found.dark_share == found.glare_share == 0.0


def test_a_part_without_the_edges_of_its_template_is_blurred(pair: tuple[Picture, Picture]) -> None:
    part, template = pair
    found = picture_quality(blurred(part, 60.0), template)
    assert found.blur_px is None
    assert within(found, {"limits": {"blur_added_px": {"max": 2.1}}}) == ("blur_added_px 8 > 2.1",)

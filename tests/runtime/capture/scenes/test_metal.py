"""Simulated metal surfaces: repeatable, and every defect is as large, visible and coloured as its truth."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orinspect.runtime.capture.scenes import SceneDefect
from orinspect.runtime.capture.scenes.metal import METAL_TYPES, SURFACES, Surface, metal_scene
from orinspect.runtime.capture.scenes.metal.distractors import add_dust
from orinspect.runtime.capture.scenes.metal.outlines import SIZES_PX, Outline, Points, random_outline
from orinspect.runtime.capture.scenes.metal.paint import SOFT_PX, Mark
from orinspect.runtime.capture.scenes.metal.scene import Drawing, draw_scene

SEEDS = range(40, 64)
SIZE_PX = 320
MM = 0.02
BLUR_REACH_PX = 5  # 4 sigma of the softest focus


@cache
def drawing(seed: int) -> Drawing:
    return draw_scene(seed, size_px=SIZE_PX, surface=SURFACES[seed % 4], defects=4)


def found(kind: str) -> list[tuple[Drawing, Mark, SceneDefect]]:
    cases = [(drawing(seed), mark, defect) for seed in SEEDS
             for mark, defect in zip(drawing(seed).marks, drawing(seed).defects, strict=True)
             if defect.type == kind]
    assert len(cases) >= 5, f"only {len(cases)} of type {kind}"
    return cases


def levels(scene: Drawing, surface: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What the camera would show without noise, [H, W, 3] BGR."""
    seen = scene.look.blurred(scene.look.lit(surface, (0, 0, SIZE_PX, SIZE_PX)))
    return np.asarray(np.clip(seen, 0, 255), np.float32)


def ratio(scene: Drawing, defect: SceneDefect) -> npt.NDArray[np.float32]:
    """How the defect changed the reflectance in its box, [h, w, 3] BGR."""
    x1, y1, x2, y2 = defect.bbox_xyxy
    return np.asarray(scene.damaged[y1:y2, x1:x2] / scene.sound[y1:y2, x1:x2], np.float32)


def grown(defect: SceneDefect, margin_px: int) -> tuple[slice, slice]:
    x1, y1, x2, y2 = defect.bbox_xyxy
    return (slice(max(y1 - margin_px, 0), y2 + margin_px), slice(max(x1 - margin_px, 0), x2 + margin_px))


def test_the_same_arguments_give_the_same_bits() -> None:
    first, second = (metal_scene(7, size_px=200, defects=3) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.image.shape == (200, 200, 3) and first.image.dtype == np.uint8
    assert [d.bbox_xyxy for d in first.defects] == [d.bbox_xyxy for d in second.defects]
    assert [d.colour_rgb for d in first.defects] == [d.colour_rgb for d in second.defects]
    assert metal_scene(8, size_px=200, defects=3).image.tobytes() != first.image.tobytes()


def test_the_surface_stays_when_the_number_of_defects_changes() -> None:
    none, many = (draw_scene(11, size_px=200, defects=count) for count in (0, 5))
    assert not none.defects and many.defects
    assert (none.sound == none.damaged).all()
    assert (none.look.noise == many.look.noise).all() and (none.taken == many.taken).all()


@pytest.mark.parametrize(("arguments", "named"), [
    ({"seed": -1}, "seed is -1"),
    ({"size_px": 127}, "size_px is 127"),
    ({"size_px": 4097}, "size_px is 4097"),
    ({"surface": "wood"}, "surface is 'wood'"),
    ({"defects": 7}, "defects is 7"),
    ({"defects": -1}, "defects is -1"),
    ({"mm_per_px": 0.0}, "mm_per_px is 0"),
    ({"mm_per_px": math.nan}, "mm_per_px is nan"),
])
def test_bad_arguments_are_refused_by_name(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        metal_scene(**{"seed": 1, **arguments})  # type: ignore[arg-type]


def test_a_fifth_of_the_pictures_is_good_and_every_surface_comes() -> None:
    scenes = [metal_scene(seed, size_px=128) for seed in range(150)]
    counts = Counter(len(scene.defects) for scene in scenes)
    assert 0.12 <= counts[0] / 150 <= 0.28
    assert max(counts) <= 6 and {1, 2, 3} <= set(counts)
    assert {scene.surface for scene in scenes} == set(SURFACES)
    assert {defect.type for scene in scenes for defect in scene.defects} == set(METAL_TYPES)


@pytest.mark.parametrize("surface", SURFACES)
def test_the_number_asked_for_is_drawn_where_there_is_room(surface: Surface) -> None:
    scenes = [metal_scene(seed, surface=surface, defects=6) for seed in range(3)]
    assert sum(len(scene.defects) for scene in scenes) >= 15
    assert {scene.surface for scene in scenes} == {surface}


def finely_drawn(outline: Outline, window: tuple[int, int, int, int], fine: int) -> npt.NDArray[np.bool_]:
    """The shape on a grid `fine` times as dense: a grid point is inside when it is inside any polygon."""
    height, width = (window[3] - window[1]) * fine, (window[2] - window[0]) * fine
    whole = np.zeros((height, width), np.bool_)
    for polygon in outline.polygons:
        ring = (polygon - window[:2]) * fine
        rows = np.arange(height)[:, None] + 0.5
        winding = np.zeros((height, width + 1), np.int32)
        for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            low, high = math.ceil(min(y1, y2) - 0.5), math.ceil(max(y1, y2) - 0.5)
            if low == high:
                continue
            cross = x1 + (rows[low:high, 0] - y1) * (x2 - x1) / (y2 - y1)
            winding[np.arange(low, high), np.ceil(cross - 0.5).astype(int)] += 1 if y2 > y1 else -1
        whole |= np.cumsum(winding, axis=1)[:, :-1] != 0
    return whole


def sides(mask: npt.NDArray[np.bool_], fine: int) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    points = np.stack([columns, rows], axis=1).astype(np.float32) / fine
    _, (first, second), _ = cv2.minAreaRect(points)
    return max(first, second) + 1 / fine, min(first, second) + 1 / fine


@pytest.mark.parametrize("kind", METAL_TYPES)
def test_sizes_and_masks_are_those_of_the_exact_shape(kind: str) -> None:
    fine = 12
    for _, mark, defect in found(kind)[:4]:
        inside = finely_drawn(mark.outline, mark.window, fine)
        length_px, width_px = sides(inside, fine)
        assert defect.length_mm / MM == pytest.approx(length_px, abs=0.3)
        assert defect.width_mm / MM == pytest.approx(width_px, abs=0.3)
        height, width = mark.cover.shape
        share = inside.reshape(height, fine, width, fine).mean(axis=(1, 3))
        # Pixels that a crack shares with its branch, or rust with a spot of it, are known to a quarter.
        doubt = 0.1 if len(mark.outline.polygons) == 1 else 0.26
        assert np.abs(share - mark.cover).max() < doubt
        assert defect.area_mm2 / MM**2 == pytest.approx(share.sum(), rel=0.02)
        x1, y1, x2, y2 = (value - mark.window[index % 2] for index, value in enumerate(defect.bbox_xyxy))
        mask = np.zeros(mark.cover.shape, np.bool_)
        mask[y1:y2, x1:x2] = defect.mask
        sure = np.abs(share - 0.5) > doubt
        assert (mask == (share > 0.5))[sure].all()


def test_a_turned_rectangle_has_its_own_sides_and_area() -> None:
    turn = 0.4
    corners = np.array([[-20.0, -3.0], [20.0, -3.0], [20.0, 3.0], [-20.0, 3.0]])
    matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    shape = Outline((corners @ matrix,)).moved(40.3, 30.7)
    assert shape.sides_px() == pytest.approx((40.0, 6.0), abs=1e-3)
    assert float(shape.coverage((0, 0, 80, 60)).sum()) == pytest.approx(240.0, rel=0.001)


@pytest.mark.parametrize("kind", METAL_TYPES)
def test_shapes_are_as_large_as_their_type(kind: str) -> None:
    low, high = SIZES_PX[kind]
    longest = [random_outline(kind, 1000.0, np.random.default_rng(seed)).sides_px()[0] for seed in range(150)]
    assert min(longest) > 0.8 * low and max(longest) < 1.2 * high
    assert max(longest) > 0.6 * high and min(longest) < 1.9 * low


def test_the_picture_differs_only_in_the_boxes_and_their_soft_margin() -> None:
    for seed in SEEDS[:10]:
        scene = drawing(seed)
        clean, damaged = scene.look.picture(scene.sound), scene.look.picture(scene.damaged)
        outside = np.ones((SIZE_PX, SIZE_PX), np.bool_)
        for defect in scene.defects:
            outside[grown(defect, SOFT_PX + BLUR_REACH_PX)] = False
        assert (clean[outside] == damaged[outside]).all()
        assert all((clean[grown(defect, 0)] != damaged[grown(defect, 0)]).any() for defect in scene.defects)


def test_a_defect_fades_before_its_window_ends() -> None:
    """No rectangle shows around a defect: at the window's border nothing has changed by half a level."""
    for seed in SEEDS:
        scene = drawing(seed)
        change = np.abs(scene.look.lit(scene.damaged - scene.sound, (0, 0, SIZE_PX, SIZE_PX))).max(axis=2)
        for mark in scene.marks:
            x1, y1, x2, y2 = mark.window
            rims = [change[y1:y2, x] for x in (x1, x2 - 1) if 0 < x < SIZE_PX - 1]
            rims += [change[y, x1:x2] for y in (y1, y2 - 1) if 0 < y < SIZE_PX - 1]
            assert all(float(rim.max()) < 0.5 for rim in rims), (seed, mark.kind)


def test_boxes_are_tight_and_keep_apart() -> None:
    for seed in SEEDS:
        boxes = [defect.bbox_xyxy for defect in drawing(seed).defects]
        for defect in drawing(seed).defects:
            x1, y1, x2, y2 = defect.bbox_xyxy
            assert 0 <= x1 < x2 <= SIZE_PX and 0 <= y1 < y2 <= SIZE_PX
            assert defect.mask.shape == (y2 - y1, x2 - x1)
            assert all(side.any() for side in (defect.mask[0], defect.mask[-1], defect.mask[:, 0],
                                               defect.mask[:, -1]))
        for index, a in enumerate(boxes):
            assert all(max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3]) >= 24 for b in boxes[:index])


def test_distractors_are_on_two_fifths_of_the_pictures_and_never_in_a_box() -> None:
    scenes = [draw_scene(seed, size_px=192, defects=2) for seed in range(60)]
    cluttered = [scene for scene in scenes if scene.taken.any()]
    assert 14 <= len(cluttered) <= 36
    assert sum(len(scene.defects) for scene in cluttered) >= 15
    assert not any(scene.taken[grown(defect, 0)].any() for scene in cluttered for defect in scene.defects)


def test_dust_keeps_out_of_the_boxes() -> None:
    surfaces = [np.ones((400, 400, 3), np.float32) for _ in range(2)]
    add_dust(surfaces, [(0, 0, 200, 400)], np.random.default_rng(3))
    specks = surfaces[0] != 1.0
    assert specks.any() and not specks[:, :200].any()
    assert (surfaces[0] == surfaces[1]).all()
    _, _, stats, _ = cv2.connectedComponentsWithStats(specks.any(axis=2).astype(np.uint8))
    assert stats[1:, :4][:, 2:].max() < 3


@pytest.mark.parametrize("kind", METAL_TYPES)
def test_every_defect_stands_out_of_the_noise(kind: str) -> None:
    for scene, _, defect in found(kind):
        change = np.abs(levels(scene, scene.damaged) - levels(scene, scene.sound)).max(axis=2)
        assert float(change[grown(defect, 0)][defect.mask].mean()) >= 3.0 * scene.look.noise_sigma


@pytest.mark.parametrize("kind", METAL_TYPES)
def test_the_colours_are_those_of_the_picture(kind: str) -> None:
    """Measured on the finished picture: a large defect and its surroundings have the colours of the truth."""
    measured = 0
    for scene, _, defect in found(kind):
        inner = cv2.erode(np.pad(defect.mask, 2).astype(np.uint8), np.ones((5, 5), np.uint8))[2:-2, 2:-2] > 0
        if inner.sum() < 60 or inner.sum() < 0.5 * defect.mask.sum():
            continue
        blue, green, red = scene.look.picture(scene.damaged)[grown(defect, 0)][inner].mean(axis=0)
        assert defect.colour_rgb == pytest.approx((red, green, blue), abs=9.0)
        measured += 1
    assert measured >= 2 or kind in ("scratch", "crack", "pit"), "those are thinner than the blur"


def test_rust_is_brown_or_orange_and_granular_and_a_stain_is_neither() -> None:
    grains = {"rust": [], "stain": []}  # type: dict[str, list[float]]
    for kind, roughness in grains.items():
        for scene, mark, defect in found(kind):
            assert defect.colour_rgb is not None and defect.surround_rgb is not None
            red, green, blue = defect.colour_rgb
            warmth = (red / blue) / (defect.surround_rgb[0] / defect.surround_rgb[2])
            if kind == "rust":
                assert red > 1.25 * green > 1.25 * blue
            else:
                assert warmth < 1.25
            film = np.log(np.maximum(ratio(scene, defect)[..., 2], 1e-3))
            core = cv2.erode(mark.cover, np.ones((7, 7), np.uint8))
            x1, y1, x2, y2 = (value - mark.window[i % 2] for i, value in enumerate(defect.bbox_xyxy))
            inner = core[y1:y2, x1:x2] > 0.99
            if inner.sum() > 30:
                roughness.append(float((film - cv2.GaussianBlur(film, (0, 0), 2.0))[inner].std()))
    assert min(grains["rust"]) > 3 * max(grains["stain"])


def test_cracks_and_pits_are_darker_than_their_surroundings() -> None:
    for kind in ("crack", "pit"):
        for _, _, defect in found(kind):
            assert defect.colour_rgb is not None and defect.surround_rgb is not None
            assert sum(defect.colour_rgb) < 0.85 * sum(defect.surround_rgb)


def test_scratches_are_bright_or_dark() -> None:
    signs = Counter(np.sign(sum(defect.colour_rgb or ()) - sum(defect.surround_rgb or ()))
                    for _, _, defect in found("scratch"))
    assert min(signs[1.0], signs[-1.0]) >= 2


def test_a_dent_has_a_light_and_a_dark_flank_and_no_pigment_of_its_own() -> None:
    for scene, _, defect in found("dent"):
        shade = ratio(scene, defect)
        assert float(np.ptp(shade, axis=2).max()) < 1e-3, "the three colours change alike"
        assert float(shade.max()) > 1.03 and float(shade.min()) < 0.97


def kinks(line: Points) -> npt.NDArray[np.float64]:
    """Angles between the pieces of a line [n, 2], radians."""
    way = np.diff(line, axis=0)
    heading = np.unwrap(np.arctan2(way[:, 1], way[:, 0]))
    return np.abs(np.diff(heading))


def middle_of_stroke(outline: Points) -> Points:
    """Halfway between the two sides of a stroke: an outline is a side, an end of 3 points, a side, an end."""
    count = (len(outline) - 6) // 2
    return np.asarray((outline[:count] + outline[count + 3:-3][::-1]) / 2, np.float64)


def test_a_crack_is_jagged_and_a_scratch_is_not() -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        crack, scratch = (random_outline(kind, 400.0, rng).polygons[0] for kind in ("crack", "scratch"))
        assert kinks(middle_of_stroke(crack)).max() > 0.5
        assert kinks(middle_of_stroke(scratch)).max() < 0.1

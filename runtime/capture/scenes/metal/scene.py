"""A simulated metal surface in colour with everything known about its defects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..truth import SceneDefect
from .distractors import Taken, add_distractors, add_dust
from .light import Look, random_look
from .outlines import Window, random_outline
from .paint import Mark
from .surfaces import SURFACES, Field, Surface, reflectance

METAL_TYPES: tuple[str, ...] = ("scratch", "dent", "pit", "rust", "stain", "crack")
"""The defect types of a metal scene; the same order everywhere."""

MM_PER_PX = 0.02
SMALLEST_PX, LARGEST_PX = 128, 4096
MOST_DEFECTS = 6

_GOOD_SHARE = 0.2
_DISTRACTOR_SHARE = 0.4
_COUNT_SHARES = (0.28, 0.25, 0.2, 0.13, 0.08, 0.06)  # of 1..6 defects on a part that is not good
_GAP_PX = 12  # around every box; boxes grown by it do not touch
_EDGE_PX = 4  # a defect keeps this far from the picture's edge
_PLACES = 12  # tried for one outline before a smaller one
_TRIES = 6  # outlines drawn for one defect before another is begun
_NOISE_FACTOR = 3.3  # mean change over the mask against the noise
_LEAST_CHANGE = 8.0  # levels, however little noise there is: a person must see it
# And against the texture around: shade and thin lines drown in it, a film of another colour does not.
_TEXTURE_FACTOR = {"scratch": 1.6, "dent": 2.3, "pit": 1.6, "rust": 1.0, "stain": 0.7, "crack": 1.5}


@dataclass(frozen=True)
class SurfaceScene:
    """One picture of a metal surface and the truth about it.

    `image` is uint8 [H, W, 3] BGR. Every defect has `colour_rgb` and `surround_rgb`.
    """

    image: npt.NDArray[np.uint8]
    defects: tuple[SceneDefect, ...]
    mm_per_px: float
    surface: Surface
    seed: int


@dataclass(frozen=True)
class Drawing:
    """A scene before its picture is taken: the surface without and with its defects, and the exposure."""

    sound: Field  # [H, W, 3] BGR reflectance
    damaged: Field
    look: Look
    marks: tuple[Mark, ...]
    defects: tuple[SceneDefect, ...]
    taken: Taken
    surface: Surface


def metal_scene(seed: int, *, size_px: int = 512, surface: Surface | None = None, defects: int | None = None,
                mm_per_px: float = MM_PER_PX) -> SurfaceScene:
    """Picture number `seed` of a metal surface, uint8 [size_px, size_px, 3] BGR.

    `surface` and the number of `defects` (0..6) are drawn when None: a fifth of all pictures has no defect,
    and a picture without room carries fewer than asked. Defects are as large in pixels whatever `mm_per_px`
    is: it only says what a pixel measures. The same arguments give the same bits.
    Raises ValueError for a negative seed, a size outside 128..4096, an unknown surface, or another number.
    """
    drawing = draw_scene(seed, size_px=size_px, surface=surface, defects=defects, mm_per_px=mm_per_px)
    return SurfaceScene(drawing.look.picture(drawing.damaged), drawing.defects, mm_per_px, drawing.surface,
                        seed)


def draw_scene(seed: int, *, size_px: int = 512, surface: Surface | None = None, defects: int | None = None,
               mm_per_px: float = MM_PER_PX) -> Drawing:
    """Everything of `metal_scene` before the camera: `look.picture(sound)` is the same part without defects.

    Raises ValueError as `metal_scene` does.
    """
    _refuse_bad_arguments(seed, size_px, surface, defects, mm_per_px)
    # Streams of their own: another number of defects leaves the surface and the light as they are.
    skin_rng, look_rng, extra_rng, defect_rng, dust_rng = (
        np.random.default_rng([seed, stream]) for stream in range(10, 15))
    drawn_surface = SURFACES[int(skin_rng.integers(len(SURFACES)))]
    surface = drawn_surface if surface is None else surface
    sound = reflectance(surface, size_px, skin_rng)
    look = random_look(surface, sound, look_rng)
    cluttered = bool(extra_rng.random() < _DISTRACTOR_SHARE)
    taken = add_distractors(sound, extra_rng) if cluttered else np.zeros((size_px, size_px), np.uint8)
    count = 0 if defect_rng.random() < _GOOD_SHARE else 1 + int(defect_rng.choice(6, p=_COUNT_SHARES))
    damaged = sound.copy()
    marks, truths = _damage(damaged, look, taken, surface, count if defects is None else defects, mm_per_px,
                            defect_rng)
    if cluttered and dust_rng.random() < 0.6:
        add_dust((sound, damaged), [truth.bbox_xyxy for truth in truths], dust_rng)
    return Drawing(sound, damaged, look, tuple(marks), tuple(truths), taken, surface)


def _refuse_bad_arguments(seed: int, size_px: int, surface: str | None, defects: int | None,
                          mm_per_px: float) -> None:
    if seed < 0:
        raise ValueError(f"seed is {seed}: give a whole number from 0")
    if not SMALLEST_PX <= size_px <= LARGEST_PX:
        raise ValueError(f"size_px is {size_px}: a surface has {SMALLEST_PX} to {LARGEST_PX} pixels a side")
    if surface is not None and surface not in SURFACES:
        raise ValueError(f"surface is {surface!r}: one of {', '.join(SURFACES)}")
    if defects is not None and not 0 <= defects <= MOST_DEFECTS:
        raise ValueError(f"defects is {defects}: give 0 to {MOST_DEFECTS}, or None to draw it")
    if not 0.0 < mm_per_px < float("inf"):
        raise ValueError(f"mm_per_px is {mm_per_px}: give a number above 0")


def _damage(damaged: Field, look: Look, taken: Taken, surface: Surface, count: int, mm_per_px: float,
            rng: np.random.Generator) -> tuple[list[Mark], list[SceneDefect]]:
    """Paint `count` defects into `damaged` [H, W, 3], in place, or fewer; what was painted, and its truth."""
    marks: list[Mark] = []
    truths: list[SceneDefect] = []
    for _ in range(3 * count):
        if len(marks) == count:
            break
        kind = METAL_TYPES[int(rng.integers(len(METAL_TYPES)))]
        longest = 0.6 * damaged.shape[0]
        for _ in range(_TRIES):  # the type stays, so that a type that is hard to place or to see is not rare
            mark = _placed(kind, longest, taken, [truth.bbox_xyxy for truth in truths], surface, rng)
            strength = float(0.45 + 0.75 * rng.random() ** 1.3)
            truth = None if mark is None else _paint_until_visible(mark, damaged, look, mm_per_px, strength)
            if mark is not None and truth is not None:
                marks.append(mark)
                truths.append(truth)
                break
            longest *= 0.7 if mark is None else 1.0
    return marks, truths


def _placed(kind: str, longest_px: float, taken: Taken, boxes: Sequence[Window], surface: Surface,
            rng: np.random.Generator) -> Mark | None:
    """A random shape where there is room for it; None when there is none."""
    size_px = taken.shape[0]
    outline = random_outline(kind, longest_px, rng)
    left, top, right, bottom = outline.bounds()
    low_x, low_y = _EDGE_PX - left, _EDGE_PX - top
    high_x, high_y = size_px - _EDGE_PX - right, size_px - _EDGE_PX - bottom
    seed = int(rng.integers(2**62))
    if high_x <= low_x or high_y <= low_y:
        return None
    for _ in range(_PLACES):
        x, y = rng.uniform(low_x, high_x), rng.uniform(low_y, high_y)
        box = (int(left + x) - 1, int(top + y) - 1, int(right + x) + 2, int(bottom + y) + 2)
        if any(_near(box, other, 2 * _GAP_PX) for other in boxes):
            continue
        near = (max(box[0] - _GAP_PX, 0), max(box[1] - _GAP_PX, 0), box[2] + _GAP_PX, box[3] + _GAP_PX)
        if not taken[near[1]:near[3], near[0]:near[2]].any():
            return Mark.of(kind, outline.moved(x, y), size_px, surface, seed)
    return None


def _near(a: Window, b: Window, gap_px: int) -> bool:
    return max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3]) < gap_px


def _paint_until_visible(mark: Mark, damaged: Field, look: Look, mm_per_px: float,
                         strength: float) -> SceneDefect | None:
    """Paint the mark into `damaged`, in place, stronger until it shows; None when it never does."""
    x1, y1, x2, y2 = mark.window
    patch = damaged[y1:y2, x1:x2]
    mask = mark.cover > 0.5
    before = look.lit(patch, mark.window)
    seen_before = look.blurred(before)
    grey = seen_before.mean(axis=2)
    around = ~cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    texture = float((grey - cv2.GaussianBlur(grey, (0, 0), 8.0))[around].std()) if around.any() else 0.0
    wanted = max(_NOISE_FACTOR * look.noise_sigma, _TEXTURE_FACTOR[mark.kind] * texture, _LEAST_CHANGE)
    for _ in range(5):
        painted = mark.painted(patch, strength)
        after = look.lit(painted, mark.window)
        change = np.abs(np.clip(look.blurred(after), 0, 255) - np.clip(seen_before, 0, 255))[mask]
        if change.size and float(change.max(axis=1).mean()) >= wanted:
            damaged[y1:y2, x1:x2] = painted
            return _truth(mark, mask, before, after, mm_per_px)
        strength *= 1.4
    return None


def _truth(mark: Mark, mask: npt.NDArray[np.bool_], before: Field, after: Field,
           mm_per_px: float) -> SceneDefect:
    """What is known about a painted mark; `before` and `after` are levels [h, w, 3] BGR before blur."""
    rows, columns = np.nonzero(mask)
    x1, x2 = int(columns.min()), int(columns.max()) + 1
    y1, y2 = int(rows.min()), int(rows.max()) + 1
    near, far = (cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (px, px))) > 0
                 for px in (9, 25))
    length_px, width_px = mark.outline.sides_px()
    return SceneDefect(
        type=mark.kind,
        bbox_xyxy=(x1 + mark.window[0], y1 + mark.window[1], x2 + mark.window[0], y2 + mark.window[1]),
        mask=np.ascontiguousarray(mask[y1:y2, x1:x2]),
        length_mm=length_px * mm_per_px,
        width_mm=width_px * mm_per_px,
        area_mm2=float(mark.cover.sum()) * mm_per_px * mm_per_px,
        colour_rgb=_mean_rgb(after[mask]),
        surround_rgb=_mean_rgb(before[far & ~near]),
    )


def _mean_rgb(levels: Field) -> tuple[float, float, float]:
    """Mean red, green and blue of BGR levels [n, 3], each clipped to what a picture can show."""
    blue, green, red = np.clip(levels, 0, 255).mean(axis=0)
    return float(red), float(green), float(blue)

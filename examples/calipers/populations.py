"""Pictures of one defect whose size is known exactly: drawn shapes on drawn surfaces, seen by a drawn camera.

Shapes are polygons of known length, width and area; the picture is their coverage at eight times the
resolution, blurred, put on a surface, given noise and rounded. The box is what a detector would give:
some room, some jitter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ...runtime.capture.scenes.pcb import pcb_scene
from ...runtime.judge.measure.contour import smallest_rectangle

KINDS = ("rectangle", "scratch", "curved scratch", "ellipse", "blotch")
SURFACES = ("flat", "brushed", "pcb")
MM_PER_PX = (0.01, 0.02, 0.05)
SCALE_UNCERTAINTY = 0.002  # relative, k = 1: of the scale that the calipers are given
_FINE = 8  # sub-pixels a pixel and axis
_MARGIN_PX = 34


@dataclass(frozen=True)
class Specimen:
    """A picture uint8 [H, W] or [H, W, 3], a box in it, and the truth; lengths in px, area in px2.

    `mm_per_px` is true, `stated_mm_per_px` is what a calibration with `SCALE_UNCERTAINTY` found.
    """

    image: npt.NDArray[np.uint8]
    template: npt.NDArray[np.uint8] | None
    box: tuple[float, float, float, float]
    length: float
    width: float
    area: float
    mm_per_px: float
    stated_mm_per_px: float
    kind: str
    surface: str
    blur_px: float
    noise: float
    contrast: float
    thickness: float


def specimen(seed: int) -> Specimen:
    """Specimen number `seed`; the same number gives the same bits."""
    rng = np.random.default_rng([20, seed])
    kind, surface = KINDS[int(rng.integers(len(KINDS)))], SURFACES[int(rng.integers(len(SURFACES)))]
    outline, thickness = _outline(kind, rng)
    outline -= outline.min(axis=0) - _MARGIN_PX - rng.random(2)
    size = np.ceil(outline.max(axis=0)).astype(int) + _MARGIN_PX
    blur, noise = float(rng.uniform(0.5, 2.0)), float(rng.uniform(1.0, 8.0))
    contrast = float(rng.uniform(20.0, 120.0))
    coverage = _coverage(outline, (int(size[0]), int(size[1])))
    ground, template = _ground(surface, (int(size[0]), int(size[1])), rng)
    colour = rng.uniform(0.3, 1.0, 3) * rng.choice([-1.0, 1.0])
    colour *= contrast / float(np.abs(colour).mean())
    is_colour = surface != "pcb" and rng.random() < 0.5
    if not is_colour:
        colour = np.full(1, float(np.sign(colour[0])) * contrast)
    picture = _camera(ground[..., None] + coverage[..., None] * colour, blur, noise, rng)
    golden = None
    if template is not None:
        golden = _camera(
            template[..., None], float(np.clip(blur + rng.uniform(-0.3, 0.3), 0.5, 2.0)), noise, rng
        )
    if not is_colour:
        picture, golden = picture[..., 0], None if golden is None else golden[..., 0]
    length, width, _, _ = smallest_rectangle(outline)
    mm_per_px = MM_PER_PX[int(rng.integers(len(MM_PER_PX)))]
    stated = mm_per_px * (1.0 + SCALE_UNCERTAINTY * float(rng.standard_normal()))
    return Specimen(
        picture,
        golden,
        box_of_detector(outline, rng),
        length,
        width,
        _polygon_area(outline),
        mm_per_px,
        stated,
        kind,
        surface,
        blur,
        noise,
        contrast,
        thickness,
    )


def box_of_detector(
    points_xy: npt.NDArray[np.floating], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """A box around the points [n, 2]: up to 3 px of room, a jitter (sigma) of 1 px + 2 % of the side."""
    low, high = points_xy.min(axis=0), points_xy.max(axis=0)
    jitter = rng.standard_normal(4) * (1.0 + 0.02 * np.tile(high - low, 2))
    room = float(rng.uniform(0.0, 3.0))
    sides = np.concatenate([low - room, high + room]) + np.clip(jitter, -4.0, 4.0)
    x1, y1, x2, y2 = (float(side) for side in sides)
    return x1, y1, x2, y2


def _outline(kind: str, rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], float]:
    """A closed polygon [n, 2] in px about anywhere, turned by any angle, and how thick the shape is."""
    turn = rng.uniform(0, math.pi)
    if kind == "rectangle":
        width = rng.uniform(2.0, 24.0)
        length = max(width * rng.uniform(1.0, 6.0), 7.0)
        half = np.array([[-length, -width], [length, -width], [length, width], [-length, width]]) / 2
        points, thickness = half, min(length, width)
    elif kind == "ellipse":
        width = rng.uniform(4.0, 30.0)
        length = max(width * rng.uniform(1.0, 4.0), 6.0)
        turns = np.linspace(0, 2 * math.pi, 240, endpoint=False)
        points, thickness = np.stack([length / 2 * np.cos(turns), width / 2 * np.sin(turns)], axis=1), width
    elif kind == "blotch":
        turns, radius = np.linspace(0, 2 * math.pi, 240, endpoint=False), np.ones(240)
        for wave in range(2, 10):
            radius += rng.normal(0, 0.35 / wave) * np.cos(wave * turns + rng.uniform(0, 2 * math.pi))
        radius = np.clip(radius, 0.35, None) * rng.uniform(5.0, 24.0)
        points = np.stack([radius * np.cos(turns), radius * np.sin(turns)], axis=1)
        thickness = 2 * float(radius.mean())
    else:
        thickness, length = rng.uniform(1.0, 6.0), rng.uniform(15.0, 90.0)
        bend = rng.uniform(-1.6, 1.6) if kind == "curved scratch" else 0.0
        points = _bent_capsule(length, thickness, bend)
    cos, sin = math.cos(turn), math.sin(turn)
    return points @ np.array([[cos, sin], [-sin, cos]]), float(thickness)


def _bent_capsule(length: float, thickness: float, bend: float) -> npt.NDArray[np.float64]:
    """A line of round ends, bent along an arc of `bend` radians, as a polygon."""
    along = np.linspace(-0.5, 0.5, 80)
    heading = bend * along
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * (length - thickness) / 79
    spine = np.cumsum(steps, axis=0)
    normal = np.stack([-np.sin(heading), np.cos(heading)], axis=1) * thickness / 2
    caps = []
    for end, start in ((spine[-1], heading[-1] + math.pi / 2), (spine[0], heading[0] - math.pi / 2)):
        turns = start - np.linspace(0, math.pi, 24)
        caps.append(end + thickness / 2 * np.stack([np.cos(turns), np.sin(turns)], axis=1))
    return np.concatenate([spine + normal, caps[0], (spine - normal)[::-1], caps[1]])


def _coverage(outline: npt.NDArray[np.float64], size_wh: tuple[int, int]) -> npt.NDArray[np.float32]:
    """How much of each pixel [H, W] the polygon covers, 0 to 1."""
    fine = np.zeros((size_wh[1] * _FINE, size_wh[0] * _FINE), np.float32)
    # A fine pixel belongs to the polygon by its centre, which OpenCV has at whole numbers.
    points = np.round((outline * _FINE - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(fine, [points], (1.0,), cv2.LINE_8, 4)
    cv2.polylines(
        fine, [points], True, (0.5,), 1, cv2.LINE_8, 4
    )  # OpenCV fills the fine pixels of the edge too
    return np.asarray(cv2.resize(fine, size_wh, interpolation=cv2.INTER_AREA), np.float32)


def _ground(
    surface: str, size_wh: tuple[int, int], rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """The surface without the defect in grey levels [H, W]; for a board its template too, misplaced."""
    width, height = size_wh
    level = rng.uniform(125.0, 135.0)
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    light = rng.uniform(-4, 4) * x + rng.uniform(-4, 4) * y
    if surface == "flat":
        return np.asarray(level + light, np.float32), None
    if surface == "brushed":
        side = int(math.hypot(width, height)) + 4
        grain = rng.standard_normal((side, side)).astype(np.float32)
        streaks = cv2.GaussianBlur(grain, (0, 0), sigmaX=float(rng.uniform(12, 40)), sigmaY=0.6)
        streaks = streaks * np.float32(rng.uniform(1.0, 4.0) / streaks.std())
        turned = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.uniform(0, 180)), 1.0)
        streaks = cv2.warpAffine(streaks, turned, (side, side), borderMode=cv2.BORDER_REFLECT)
        y0, x0 = (side - height) // 2, (side - width) // 2
        return np.asarray(level + light + streaks[y0 : y0 + height, x0 : x0 + width], np.float32), None
    board = pcb_scene(
        int(rng.integers(2**31)), size_px=max(width, height, 128) + 16, defects=0, misregistration_px=3.0
    )
    part = 115.0 + 0.14 * board.template[:height, :width].astype(np.float32)
    shift = rng.uniform(-2.0, 2.0, 2)
    moved = cv2.warpAffine(
        part, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), size_wh, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(part + light, np.float32), np.asarray(rng.uniform(0.9, 1.1) * moved, np.float32)


def _camera(
    light: npt.NDArray[np.floating], blur_px: float, noise: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Blur, noise and rounding of a picture [H, W, C]."""
    field = cv2.GaussianBlur(np.asarray(light, np.float32), (0, 0), blur_px).reshape(light.shape)
    field = field + rng.normal(0.0, noise, light.shape)
    return np.asarray(np.clip(np.round(field), 0, 255), np.uint8)


def _polygon_area(points: npt.NDArray[np.float64]) -> float:
    x, y = points[:, 0], points[:, 1]
    return 0.5 * abs(float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)))

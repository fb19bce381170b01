"""Seeded "warped copies" of a template: what a badly registered board looks like.

A detector that compares pictures fails first along edges that do not coincide. The copies made here shift the
template by a fraction of a pixel up to a few pixels, bend it smoothly, and (for a binarised scan) blur and
threshold it again, so that edges move and lines get a little wider or thinner. The part and its truth stay as
they are. Training uses the same function as the second validation set, with other seeds.
"""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

# Distance between the control points of the bend. Shorter than that, a bend would imitate defects (15 px).
BEND_SPACING_PX = 96.0


def warp_template(
    template: Picture,
    rng: np.random.Generator,
    max_shift_px: float = 4.0,
    max_bend_px: float = 1.5,
) -> Picture:
    """A shifted and locally bent copy of `template` (uint8 [H, W] or [H, W, 3], any size), same shape.

    The whole-picture shift is uniform in +-`max_shift_px` on each axis (sub-pixel); the bend is a smooth
    displacement field whose largest component is uniform in 0..`max_bend_px`. A binarised picture is blurred
    and thresholded again, with the blur and the threshold drawn too; a grey one is only blurred a little.
    What enters from outside repeats the border. The result depends on `rng` alone.
    """
    height, width = template.shape[:2]
    shift_xy = rng.uniform(-max_shift_px, max_shift_px, size=2)
    bend = bend_field(height, width, rng, max_bend_px)  # [2, H, W] float32
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    map_x = columns + bend[0] - np.float32(shift_xy[0])
    map_y = rows + bend[1] - np.float32(shift_xy[1])
    moved = cv2.remap(template, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    sigma = float(rng.uniform(0.6, 1.2))
    threshold = float(rng.uniform(98.0, 158.0))
    if not is_binarised(template):
        return np.asarray(cv2.GaussianBlur(moved, (0, 0), 0.5 * sigma), dtype=np.uint8)
    blurred = cv2.GaussianBlur(moved, (0, 0), sigma)
    return np.where(blurred > threshold, np.uint8(255), np.uint8(0)).astype(np.uint8)


def warp_rng(seed: int, name: str) -> np.random.Generator:
    """The generator of one picture's warp: the same for `seed` and `name`, whichever other rows are read."""
    return np.random.default_rng([seed, zlib.crc32(name.encode("utf-8"))])


def is_binarised(picture: Picture) -> bool:
    """Whether nearly all pixels (97 %) are close to black or white, as in a binarised scan saved as JPEG."""
    grey_share = float(np.mean((picture > 64) & (picture < 192)))
    return grey_share < 0.03


def bend_field(height: int, width: int, rng: np.random.Generator, max_px: float) -> npt.NDArray[np.float32]:
    """[2, height, width] float32 displacement in px (x, y), smooth, its largest component 0..`max_px`."""
    points_y = max(2, round(height / BEND_SPACING_PX) + 1)
    points_x = max(2, round(width / BEND_SPACING_PX) + 1)
    control = rng.normal(size=(2, points_y, points_x)).astype(np.float32)
    amplitude = np.float32(rng.uniform(0.0, max_px))
    field = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC) for plane in control])
    largest = np.float32(np.abs(field).max()) or np.float32(1.0)
    return np.asarray(field * (amplitude / largest), dtype=np.float32)

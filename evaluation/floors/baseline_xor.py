"""Floor 1: boxes around the difference of part and template, without a class.

Classical, about 20 ms a picture; a model that does not beat it adds only the name of the defect. The template
is aligned by a whole-picture shift, both pictures are made binary, what lies within a tolerance band of the
template's edges is forgiven, and the connected rest is boxed. The default numbers were chosen on DeepPCB's
training boards only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ...runtime.infer.pictures.register import shift_between, window_at
from ..scores import NamedBox
from ..sets.example import Example
from ..warp import is_binarised

Picture = npt.NDArray[np.uint8]
# The XOR floor finds and does not name: its boxes carry this type and are scored without class.
UNNAMED = "unnamed"


@dataclass(frozen=True)
class XorSettings:
    """How a difference becomes a box; lengths in px, `min_area` in px^2."""

    max_shift_px: int = 4
    band_px: int = 5
    open_px: int = 3
    close_px: int = 11
    min_area: int = 8
    pad_px: int = 12


def aligned_template(template: Picture, part: Picture, max_shift_px: int) -> Picture:
    """`template` moved by the whole-picture shift that fits `part` best; both uint8 [H, W], square or not."""
    dx, dy = shift_between(template, part, max_shift_px)
    if dx == 0 and dy == 0:
        return template
    height, width = template.shape
    return window_at(template, dx, dy, max(height, width))[:height, :width]


def binary_picture(picture: Picture) -> npt.NDArray[np.uint8]:
    """0 or 1 a pixel, [H, W] uint8: at half scale for a scan, by Otsu's threshold for a grey picture."""
    if is_binarised(picture):
        return (picture > 127).astype(np.uint8)
    # A camera's light falls off towards the edge: divide by the picture's own wide blur first.
    light = cv2.GaussianBlur(picture, (0, 0), picture.shape[0] / 6.0).astype(np.float32) + 1.0
    flat = np.clip(cv2.medianBlur(picture, 3) / light * 128.0, 0, 255).astype(np.uint8)
    _, binary = cv2.threshold(flat, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.asarray(binary, dtype=np.uint8)


def difference_boxes(template: Picture, part: Picture, settings: XorSettings) -> list[tuple[NamedBox, int]]:
    """Padded boxes around what differs, with the area in px^2 of each difference; template is aligned here.

    Confidence grows with the area: area / (area + 40), so that boxes can be ranked.
    """
    height, width = part.shape
    other = binary_picture(aligned_template(template, part, settings.max_shift_px))
    here = binary_picture(part)
    band = np.ones((settings.band_px, settings.band_px), np.uint8)
    brighter = (here == 1) & (cv2.dilate(other, band) == 0)  # no bright template is near
    darker = (here == 0) & (cv2.erode(other, band) == 1)  # the template is bright all around
    differs = (brighter | darker).astype(np.uint8)
    left = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((settings.open_px,) * 2, np.uint8))
    joined = cv2.morphologyEx(left, cv2.MORPH_CLOSE, np.ones((settings.close_px,) * 2, np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    boxes = []
    for x, y, w, h, area in stats[1:count].tolist():
        if area < settings.min_area:
            continue
        pad = settings.pad_px
        corners = (max(0, x - pad), max(0, y - pad), min(width, x + w + pad), min(height, y + h + pad))
        boxes.append((NamedBox(UNNAMED, tuple(map(float, corners)), area / (area + 40.0)), int(area)))
    return boxes


def xor_detections(example: Example, settings: XorSettings | None = None) -> tuple[NamedBox, ...]:
    """The floor's boxes for one part."""
    found = difference_boxes(example.golden, example.image, settings or XorSettings())
    return tuple(box for box, _ in found)


def unnamed(truth: Sequence[NamedBox]) -> tuple[NamedBox, ...]:
    """Truth without its class, to score boxes that carry none."""
    return tuple(NamedBox(UNNAMED, box.bbox_xyxy) for box in truth)

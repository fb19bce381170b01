"""Simulated parts as a data set: `scenes:pcb?seed=7&parts=50` and `scenes:metal?seed=7&parts=50`.

Keys of both: `seed`, `parts`, `defects`, `good` (share of parts without any), `size_px`; boards also `style`
and `misregistration_px`, metal also `surface` and `mm_per_px`. The parts are those that the scene camera
shows for the same source. Where `defects` is not given their number is drawn; a fifth of metal has none then.
Boxes are widened by the caller's margin; sizes are the scene's own, in millimetres.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from ...runtime.capture.scenes import DEFECT_TYPES, Scene, SceneDefect, pcb_scene
from ...runtime.capture.scenes.metal import METAL_TYPES, SurfaceScene, metal_scene
from ...runtime.capture.simulated import is_good, scene_seed
from ...runtime.errors import DataSetError
from ..scores import NamedBox
from .example import Example, Mask, Row, TrueSize

SCENE_PREFIX = "scenes:"
SCENES_GROUP = "scenes"
ALL_KEYS = ("seed", "parts", "defects", "good", "size_px", "fps")
NUMBERS = ("misregistration_px", "mm_per_px", "good", "fps")
WORDS = ("style", "surface")


@dataclass(frozen=True)
class Product:
    """A kind of scenes: how one is drawn from its seed, its defect types, and the keys that only it has."""

    draw: Callable[..., Scene | SurfaceScene]
    types: tuple[str, ...]
    own_keys: tuple[str, ...]


PRODUCTS = {"pcb": Product(pcb_scene, DEFECT_TYPES, ("style", "misregistration_px")),
            "metal": Product(metal_scene, METAL_TYPES, ("surface", "mm_per_px"))}


def scene_rows(source: str, box_margin_px: int) -> list[Row]:
    """Rows of `scenes:PRODUCT?...`; DataSetError for an unknown product, key or value."""
    product, options = scene_options(source)
    seed, parts = int(options.pop("seed")), int(options.pop("parts"))
    if parts < 1 or seed < 0:
        raise DataSetError(f"{source}: seed is {seed} and parts {parts}; give at least 0 and at least 1")
    share = float(options.pop("good", "0"))
    if not 0.0 <= share <= 1.0:
        raise DataSetError(f"{source}: good is {share}; give the share of good parts, 0 to 1")
    rows = []
    for index in range(parts):
        own = {**options, "defects": "0"} if is_good(index, share) else options
        name = f"{_row_prefix(product)}-{seed}-{index:04d}"
        rows.append(_scene_row(source, product, scene_seed(seed, index), name, own, box_margin_px))
    return rows


def scene_options(source: str) -> tuple[str, dict[str, str]]:
    """The product of `scenes:PRODUCT?...` and its keys as text, `seed` and `parts` filled in."""
    product, _, query = source[len(SCENE_PREFIX) :].partition("?")
    if product not in PRODUCTS:
        known = " or ".join(f"scenes:{name}?seed=1&parts=20" for name in PRODUCTS)
        raise DataSetError(f"{source}: scenes of {product!r} do not exist; use {known}")
    keys = (*ALL_KEYS, *PRODUCTS[product].own_keys)
    options = {"seed": "1", "parts": "20"}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in keys:
            raise DataSetError(f"{source}: the key {key!r} is unknown; known are {', '.join(keys)}")
        if key not in WORDS and not _is_number(value, key):
            raise DataSetError(f"{source}: {key} is {value!r}; give a number")
        options[key] = value
    options.pop("fps", None)  # a data set has no pace
    return product, options


def truth_from_scene(scene: Scene | SurfaceScene, box_margin_px: int) -> tuple[NamedBox, ...]:
    """The scene's tight boxes widened by `box_margin_px` on every side and clipped to the picture."""
    height, width = scene.image.shape[:2]
    boxes = []
    for defect in scene.defects:
        x1, y1, x2, y2 = defect.bbox_xyxy
        widened = (max(0, x1 - box_margin_px), max(0, y1 - box_margin_px),
                   min(width, x2 + box_margin_px), min(height, y2 + box_margin_px))
        boxes.append(NamedBox(defect.type, tuple(float(value) for value in widened)))
    return tuple(boxes)


def _scene_row(source: str, product: str, seed: int, name: str, options: Mapping[str, str],
               box_margin_px: int) -> Row:
    """One scene as a row; it is drawn when it is read."""
    keywords: dict[str, Any] = {
        key: value if key in WORDS else float(value) if key in NUMBERS else int(value)
        for key, value in options.items()}

    def read() -> Example:
        try:
            scene = PRODUCTS[product].draw(seed, **keywords)
        except ValueError as error:
            raise DataSetError(f"{source}: {error}") from error
        return Example(
            name, SCENES_GROUP, scene.image, scene.template if isinstance(scene, Scene) else None,
            truth_from_scene(scene, box_margin_px), mm_per_px=scene.mm_per_px,
            truth_sizes=tuple(TrueSize(one.length_mm, one.width_mm, one.area_mm2) for one in scene.defects),
            masks=tuple(_whole_mask(one, scene.image) for one in scene.defects), is_simulated=True)

    return Row(name, SCENES_GROUP, read)


def _whole_mask(defect: SceneDefect, image: npt.NDArray[np.uint8]) -> Mask:
    """The defect's pixels in the whole picture, bool [H, W]."""
    whole = np.zeros(image.shape[:2], np.bool_)
    x1, y1, x2, y2 = defect.bbox_xyxy
    whole[y1:y2, x1:x2] = defect.mask
    return whole


def _row_prefix(product: str) -> str:
    """What row names begin with: boards keep the camera's part ids."""
    return "scenes" if product == "pcb" else product


def _is_number(text: str, key: str) -> bool:
    """Whether `text` is what `key` needs: a decimal for lengths and rates, else a whole number."""
    try:
        float(text) if key in NUMBERS else int(text)
    except ValueError:
        return False
    return True

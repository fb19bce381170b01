"""LabelMe: a JSON file beside each picture, with its shapes as points in pixels.

Polygons, rectangles, circles and masks are read; points and lines have no area and are refused. A picture
without a file is a good part. The flags `difficult`, `crowd` and `ignore` of a shape take it out of scoring.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from ....runtime.capture.folder import natural_key
from ....runtime.errors import DataSetError
from ..example import Mask
from .classes import ClassNames
from .marks import Mark, Outline, Sheet
from .reading import is_picture_file, json_from_file
from .shapes import circle_outline, extents, points_from, polygons_outline

FLAGS_OUT = ("difficult", "crowd", "ignore")


def labelme_files(folder: Path) -> list[Path]:
    """Files under `folder` that look like LabelMe's: JSON that says `shapes` and `imagePath`."""
    return [path for path in sorted(folder.rglob("*.json")) if _looks_like(path)]


def labelme_sheets(folder: Path, names: ClassNames) -> list[Sheet]:
    """Every picture under `folder` in natural order; DataSetError names the file that is wrong."""
    sheets: dict[Path, Sheet] = {}
    for file in labelme_files(folder):
        sheet = _sheet(file, folder, names)
        if sheet.picture in sheets:
            raise DataSetError(f"{file} and {sheets[sheet.picture].where} are about one picture; keep one")
        sheets[sheet.picture] = sheet
    for picture in folder.rglob("*"):
        if is_picture_file(picture) and picture.resolve() not in sheets:
            name = picture.relative_to(folder).as_posix()
            sheets[picture.resolve()] = Sheet(picture, name, name, (), str(picture))
    if not sheets:
        raise DataSetError(f"{folder} holds no pictures; a LabelMe folder has a .json beside each")
    return sorted(sheets.values(), key=lambda one: natural_key(one.name))


def _sheet(file: Path, folder: Path, names: ClassNames) -> Sheet:
    document = json_from_file(file)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    said = document.get("imagePath") if isinstance(document, dict) else None
    if not isinstance(shapes, list) or not isinstance(said, str) or not said:
        raise DataSetError(f"{file}: a LabelMe file has shapes and imagePath; it may be cut")
    picture = (file.parent / PurePosixPath(said.replace("\\", "/"))).resolve()
    if not picture.is_file():
        raise DataSetError(f"{file}: its picture {said} is not at {picture}")
    marks = tuple(_mark(shape, f"{file}: shape {number}", names) for number, shape in enumerate(shapes, 1))
    size = document.get("imageWidth"), document.get("imageHeight")
    is_known = all(isinstance(side, int) and side > 0 for side in size)
    try:
        name = picture.relative_to(folder.resolve()).as_posix()
    except ValueError:
        name = picture.name
    return Sheet(picture, name, name, marks, str(file),
                 (int(size[0] or 0), int(size[1] or 0)) if is_known else None)


def _mark(shape: Any, where: str, names: ClassNames) -> Mark:
    if not isinstance(shape, dict):
        raise DataSetError(f"{where}: expected an object with label, points and shape_type")
    name = str(shape.get("label", ""))
    kind = names.type_of(name, where)
    flags = shape.get("flags") or {}
    is_ignored = kind is None or any(bool(flags.get(flag)) for flag in FLAGS_OUT)
    form = shape.get("shape_type") or "polygon"
    try:
        box, outline = _geometry(form, shape)
    except (TypeError, ValueError) as error:
        raise DataSetError(f"{where} ({form}): {error}") from None
    return Mark(kind or name, box, outline, is_ignored, is_tight=form != "rectangle")


def _geometry(form: str, shape: Mapping[str, Any]
              ) -> tuple[tuple[float, float, float, float], Outline | None]:
    """Box and outline; ValueError for points that make no such shape."""
    if form == "polygon":
        points = points_from(shape.get("points"), 3)
        return extents(points), polygons_outline([points])
    if form == "rectangle":
        return extents(points_from(shape.get("points"), 2)), None
    if form == "circle":
        (x, y), (edge_x, edge_y) = points_from(shape.get("points"), 2)[:2]
        radius = math.hypot(edge_x - x, edge_y - y)
        return (x - radius, y - radius, x + radius, y + radius), circle_outline((x, y), radius)
    if form == "mask":
        x, y, _, _ = extents(points_from(shape.get("points"), 2))
        piece = _packed_mask(shape.get("mask"))
        height, width = piece.shape
        return (x, y, x + width, y + height), _placed_outline(piece, round(x), round(y))
    raise ValueError("has no area; draw a polygon, rectangle or circle around the defect")


def _packed_mask(text: Any) -> Mask:
    """A PNG in base64, as LabelMe stores shapes of the kind mask."""
    if not isinstance(text, str):
        raise ValueError("the mask is missing")
    data = np.frombuffer(base64.b64decode(text), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if pixels is None:
        raise ValueError("the mask is no PNG")
    return np.asarray(pixels > 0, np.bool_)


def _placed_outline(piece: Mask, x: int, y: int) -> Outline:
    def mask(height: int, width: int) -> Mask:
        whole = np.zeros((height, width), np.bool_)
        if x < 0 or y < 0 or y + piece.shape[0] > height or x + piece.shape[1] > width:
            raise ValueError(f"the mask of {piece.shape[1]} x {piece.shape[0]} at {x}, {y} is cut off")
        whole[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
        return whole

    return mask


def _looks_like(path: Path) -> bool:
    """From the first bytes or the last ones: pictures may be packed into the middle of such files."""
    size = path.stat().st_size
    with path.open("rb") as file:
        text = file.read(1 << 16)
        file.seek(max(0, size - (1 << 16)))
        text += file.read()
    return b'"shapes"' in text and (b'"imagePath"' in text or b'"version"' in text)

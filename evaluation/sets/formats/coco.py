"""COCO: one JSON file of images, annotations and categories; boxes x, y, width, height from the top left.

An annotation without `bbox` gets the box around its `segmentation` (polygons, or run lengths, packed or not).
`iscrowd` and `ignore` are not scored. An image without annotations is a good part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....runtime.errors import DataSetError
from .classes import ClassNames
from .marks import Mark, Outline, Sheet
from .reading import json_from_file
from .shapes import extents, points_from, polygons_outline, runs_from_text, runs_outline


def coco_file(path: Path) -> Path:
    """The annotation file that is meant: `path`, or the only one in a folder or its `annotations`."""
    if not path.is_dir():
        return path
    found = [file for place in (path, path / "annotations") for file in sorted(place.glob("*.json"))
             if is_coco(file)]
    if len(found) != 1:
        names = ", ".join(str(file) for file in found) or "none"
        raise DataSetError(f"{path} holds {len(found)} COCO files ({names}); name one: coco:FILE.json")
    return found[0]


def is_coco(path: Path) -> bool:
    """Whether a file looks like COCO, from its first kilobytes and its name's end: it is not read whole."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        size = path.stat().st_size
        text = file.read(1 << 16)
        file.seek(max(0, size - (1 << 16)))
        text += file.read()
    return b'"images"' in text and b'"shapes"' not in text and any(
        word in text for word in (b'"annotations"', b'"categories"'))


def coco_sheets(path: Path, names: ClassNames) -> list[Sheet]:
    """Every image of a COCO file in its own order; DataSetError names file and entry that are wrong."""
    document = json_from_file(path)
    images = _table(document, "images", path)
    categories = {_number(one, "id", path, "category"): str(one.get("name", ""))
                  for one in _table(document, "categories", path)}
    marks: dict[int, list[Mark]] = {_number(one, "id", path, "image"): [] for one in images}
    if len(marks) != len(images):
        raise DataSetError(f"{path}: two images have one id; ids must differ")
    for entry in _table(document, "annotations", path):
        where = f"{path}: annotation {entry.get('id', '?')}"
        image, category = (_number(entry, key, path, "annotation") for key in ("image_id", "category_id"))
        if image not in marks or category not in categories:
            wrong = f"image_id {image}" if image not in marks else f"category_id {category}"
            raise DataSetError(f"{where}: {wrong} is not in the file; it is cut, or two files were mixed")
        marks[image].append(_mark(entry, categories[category], names, where))
    find = _picture_finder(path)
    return [_sheet(one, tuple(marks[one["id"]]), path, find) for one in images]


def _sheet(entry: Mapping[str, Any], marks: tuple[Mark, ...], path: Path,
           find: Callable[[str], Path | None]) -> Sheet:
    name = entry.get("file_name")
    where = f"{path}: image {entry['id']}"
    if not isinstance(name, str) or not name:
        raise DataSetError(f"{where} has no file_name")
    picture = find(name.replace("\\", "/"))
    if picture is None:
        raise DataSetError(f"{where}: {name} is neither beside the file nor in an images folder of it")
    size = entry.get("width"), entry.get("height")
    is_known = all(isinstance(side, int) and side > 0 for side in size)
    return Sheet(picture, name, name, marks, where,
                 (int(size[0] or 0), int(size[1] or 0)) if is_known else None)


def _mark(entry: Mapping[str, Any], name: str, names: ClassNames, where: str) -> Mark:
    kind = names.type_of(name, where)
    is_ignored = kind is None or bool(entry.get("iscrowd")) or bool(entry.get("ignore"))
    try:
        outline, around = _outline(entry.get("segmentation"))
        box = entry.get("bbox")
        if not box:
            if outline is None:
                raise ValueError("neither bbox nor segmentation is there")
            return Mark(kind or name, around, outline, is_ignored, is_tight=True)
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError) as error:
        raise DataSetError(f"{where}: {error}; expected bbox [x, y, width, height] in pixels, and polygons or"
                           " run lengths as segmentation") from None
    if not (width > 0 and height > 0 and np.isfinite([x, y, width, height]).all()):
        raise DataSetError(f"{where}: the bbox {box} has no area; width and height must be above 0")
    return Mark(kind or name, (x, y, x + width, y + height), outline, is_ignored)


def _outline(said: Any) -> tuple[Outline | None, tuple[float, float, float, float] | None]:
    """The outline of a `segmentation`, and the box around it where polygons say it; ValueError."""
    if not said:
        return None, None
    if isinstance(said, dict):
        counts = said.get("counts")
        runs = runs_from_text(counts) if isinstance(counts, str) else [int(run) for run in counts or ()]
        height, width = (int(side) for side in said.get("size") or ())
        return runs_outline(runs, (height, width)), None
    polygons = [points_from(one, 3) for one in said]
    return polygons_outline(polygons), extents(np.concatenate(polygons))


def _picture_finder(path: Path) -> Callable[[str], Path | None]:
    """Where images of a COCO file lie: beside it, in `images`, or in a folder named as its split."""
    split = path.stem.rpartition("_")[2]
    above = path.parent.parent
    places = [path.parent, path.parent / "images", path.parent / split, above, above / "images",
              above / split, above / "images" / split]

    def find(name: str) -> Path | None:
        return next((place / name for place in places if (place / name).is_file()), None)

    return find


def _table(document: Any, key: str, path: Path) -> list[dict[str, Any]]:
    """A list of objects under `key`; DataSetError."""
    rows = document.get(key) if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataSetError(f"{path}: {key!r} is no list of objects; a COCO file has images, annotations,"
                           " categories")
    return rows


def _number(entry: Mapping[str, Any], key: str, path: Path, what: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int):
        raise DataSetError(f"{path}: an entry of {what}s has {key} = {value!r}; expected a whole number")
    return value

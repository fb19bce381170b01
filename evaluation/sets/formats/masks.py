"""Folders of masks: one picture of 0 and another number a part; each piece of a mask is a defect.

    class by folder       test/CLASS/N.png with ground_truth/CLASS/N_mask.png, good parts in test/good (as
                          MVTec AD); images/CLASS/N.jpg with masks/CLASS/N.png; CLASS/N.jpg with CLASS/N.png
    class by pixel value  images/N.jpg with masks/N.png, and a classes.json {"1": "scratch", "2": "dent"}

Pieces nearer than 8 px are one defect, pieces of fewer than 10 px none. A picture without a mask, or with an
empty one, is a good part, unless its folder names a defect. Masks are not turned by an EXIF flag.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ....runtime.capture.folder import natural_key
from ....runtime.errors import DataSetError
from ..example import Example, Picture, Row
from .classes import ClassNames
from .marks import Mark, Sheet, example_from_sheet, fixed_outline, pieces_of_mask
from .reading import is_picture_file, picture_from_file, pixels_from_file

GOOD_FOLDERS = ("good", "ok", "free", "normal")
LAYOUTS = (("test", "ground_truth"), ("images", "masks"))
MASK_ENDS = ("", "_mask", "_gt", "_label")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class MaskedPicture:
    """A picture, its mask (None: none), and the class its folder names (None: pixel values do)."""

    picture: Path
    mask: Path | None
    folder_class: str | None
    name: str


def is_mask_folder(folder: Path) -> bool:
    """Whether pictures and masks lie in one of the layouts."""
    return any((folder / pictures).is_dir() and (folder / masks).is_dir() for pictures, masks in LAYOUTS) or (
        any(one.mask is not None for one in _masks_beside(folder)))


def mask_rows(folder: Path, names: ClassNames, margin_px: float) -> list[Row]:
    """Rows of a folder of masks in natural order; DataSetError names the file that is wrong."""
    pairs = _pairs(folder)
    if not pairs:
        raise DataSetError(f"{folder} holds no pictures with masks: give images/ with masks/, test/ with"
                           " ground_truth/, or CLASS/N.jpg with CLASS/N.png")
    return [_row(one, names, margin_px) for one in sorted(pairs, key=lambda one: natural_key(one.name))]


def _row(one: MaskedPicture, names: ClassNames, margin_px: float) -> Row:
    is_good = one.folder_class is not None and one.folder_class.lower() in GOOD_FOLDERS
    kind = None if is_good or one.folder_class is None else names.type_of(one.folder_class, str(one.picture))
    if one.folder_class is not None and not is_good and one.mask is None:
        raise DataSetError(f"{one.picture} lies in the folder of {one.folder_class!r} and has no mask")

    def read() -> Example:
        image = picture_from_file(one.picture)
        sheet = Sheet(one.picture, one.name, one.name, (), str(one.mask or one.picture))
        if one.mask is None or is_good:
            return example_from_sheet(sheet, image, margin_px)
        marks = _marks(pixels_from_file(one.mask), one, kind, names)
        height, width = image.shape[:2]
        if one.folder_class is not None and not marks:
            raise DataSetError(f"{one.mask} is empty, and its folder says {one.folder_class!r};"
                               " remove the picture or draw where the defect is")
        for mark in marks:
            size = mark.outline(height, width).shape if mark.outline else (height, width)
            if size != (height, width):
                raise DataSetError(f"{one.mask} has {size[1]} x {size[0]} pixels and {one.picture}"
                                   f" {width} x {height}; they must be of one size")
        return example_from_sheet(replace(sheet, marks=marks), image, margin_px)

    return Row(one.name, one.name, read)


def _marks(pixels: Picture, one: MaskedPicture, kind: str | None, names: ClassNames) -> tuple[Mark, ...]:
    """The pieces of a mask; where folders name the class, what is above half of the brightest is defect."""
    if one.folder_class is not None:
        mask = np.asarray(pixels > int(pixels.max()) // 2)
        return tuple(Mark(kind or one.folder_class, None, fixed_outline(piece), kind is None, is_tight=True)
                     for piece in pieces_of_mask(mask))
    marks: list[Mark] = []
    for value in np.unique(pixels):
        if value == 0:
            continue
        said = names.type_of(str(value), f"{one.mask}: pixel value {value}")
        marks += [Mark(said or str(value), None, fixed_outline(piece), said is None, is_tight=True)
                  for piece in pieces_of_mask(np.asarray(pixels == value))]
    return tuple(marks)


def _pairs(folder: Path) -> list[MaskedPicture]:
    for pictures, masks in LAYOUTS:
        if (folder / pictures).is_dir() and (folder / masks).is_dir():
            return [_pair(path, folder, folder / pictures, folder / masks)
                    for path in sorted((folder / pictures).rglob("*")) if is_picture_file(path)]
    return _masks_beside(folder)


def _pair(path: Path, folder: Path, pictures: Path, masks: Path) -> MaskedPicture:
    """A picture of a layout with two folders."""
    inner = path.relative_to(pictures).parent
    mask = _mask_of(path, masks / inner)
    name = path.relative_to(folder).as_posix()
    return MaskedPicture(path, mask, inner.parts[0] if inner.parts else None, name)


def _masks_beside(folder: Path) -> list[MaskedPicture]:
    """CLASS/N.jpg with CLASS/N.png, or N_mask.png beside any N; masks are no pictures of parts."""
    found = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        files = [path for path in sorted(place.iterdir()) if is_picture_file(path)]
        masks = {path: _mask_of(path, place) for path in files}
        taken = {mask for path, mask in masks.items() if mask is not None and mask != path}
        found += [MaskedPicture(path, masks[path], place.name, path.relative_to(folder).as_posix())
                  for path in files if path not in taken]
    return found


def _mask_of(picture: Path, place: Path) -> Path | None:
    """The mask of a picture in `place`, None where there is none."""
    for end in MASK_ENDS:
        for suffix in MASK_SUFFIXES:
            path = place / f"{picture.stem}{end}{suffix}"
            if path != picture and path.is_file():
                return path
    return None

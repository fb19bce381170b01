"""PASCAL VOC: one XML file a picture, boxes in pixels counted from 1, both ends inside.

Layouts: `Annotations/` beside `JPEGImages/` (as the VOC devkit), `annotations/` beside `images/`, or XML
files beside their pictures. A picture without an XML file has no defect. `difficult` objects are not scored.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ....runtime.capture.folder import natural_key
from ....runtime.errors import DataSetError
from .classes import ClassNames
from .marks import Mark, Sheet
from .reading import is_picture_file, text_from_file

ANNOTATION_FOLDERS = ("Annotations", "annotations")
PICTURE_FOLDERS = ("JPEGImages", "images", "Images", "imgs")
SETS = Path("ImageSets", "Main")
SETS_OF_SPLIT = {"train": ("train.txt",), "validation": ("val.txt", "test.txt")}


def is_voc(folder: Path) -> bool:
    """Whether a folder, or the folder of annotations in it, holds XML files that are VOC's."""
    places = (folder, *(folder / one for one in ANNOTATION_FOLDERS))
    files = (file for place in places for file in sorted(place.glob("*.xml")))
    first = next(files, None)
    if first is None:
        return False
    with first.open("rb") as file:
        return b"<annotation" in file.read(4096)


def voc_sheets(folder: Path, names: ClassNames) -> list[Sheet]:
    """Every picture of a VOC folder in natural order; DataSetError names the file that is wrong."""
    annotations = next((folder / one for one in ANNOTATION_FOLDERS if (folder / one).is_dir()), folder)
    pictures = next((folder / one for one in PICTURE_FOLDERS if (folder / one).is_dir()), folder)
    files = {path.stem: path for path in annotations.glob("*.xml")}
    if not files:
        raise DataSetError(f"{annotations} holds no .xml file; a VOC folder has one a picture")
    shown: dict[str, Path] = {}
    for path in sorted(pictures.iterdir()):
        if is_picture_file(path) and shown.setdefault(path.stem, path) != path:
            raise DataSetError(f"{path} and {shown[path.stem].name} have one name; an annotation fits both")
    alone = sorted(set(files) - set(shown))
    if alone:
        raise DataSetError(f"{files[alone[0]]} has no picture {alone[0]} in {pictures};"
                           f" {len(alone)} of {len(files)} annotations have none")
    return [_sheet(shown[stem], files.get(stem), names) for stem in sorted(shown, key=natural_key)]


def _sheet(picture: Path, file: Path | None, names: ClassNames) -> Sheet:
    """One picture with its objects."""
    if file is None:
        return Sheet(picture, picture.name, picture.name, (), str(picture))
    try:
        root = ElementTree.fromstring(text_from_file(file))
    except ElementTree.ParseError as error:
        raise DataSetError(f"{file} is not whole XML: {error}") from None
    marks = tuple(mark for number, element in enumerate(root.iter("object"), start=1)
                  for mark in [_mark(element, f"{file}: object {number}", names)])
    return Sheet(picture, picture.name, picture.name, marks, str(file), _size(root, file))


def _mark(element: ElementTree.Element, where: str, names: ClassNames) -> Mark:
    name = (element.findtext("name") or "").strip()
    kind = names.type_of(name, where)
    box = element.find("bndbox")
    try:
        x1, y1, x2, y2 = (float((box.findtext(side) if box is not None else None) or "?")
                          for side in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        raise DataSetError(f"{where}: expected a bndbox with xmin, ymin, xmax, ymax in pixels") from None
    if x2 < x1 or y2 < y1:
        raise DataSetError(f"{where}: xmin <= xmax and ymin <= ymax are needed; found {x1, y1, x2, y2}")
    hard = (element.findtext("difficult") or "0").strip() not in ("", "0")
    return Mark(kind or name, (x1 - 1.0, y1 - 1.0, x2, y2), is_ignored=hard or kind is None)


def _size(root: ElementTree.Element, file: Path) -> tuple[int, int] | None:
    """Width and height, None where the file leaves them out or writes 0."""
    try:
        width, height = (int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    except ValueError:
        raise DataSetError(f"{file}: size is not two whole numbers of pixels") from None
    return (width, height) if width > 0 and height > 0 else None


def voc_split(folder: Path, split: str) -> set[str] | None:
    """Stems of one side by the set's own ImageSets/Main; None where it has none."""
    for file in SETS_OF_SPLIT.get(split, ()):
        path = folder / SETS / file
        if path.is_file():
            return {line.split()[0] for line in text_from_file(path).splitlines() if line.strip()}
    return None

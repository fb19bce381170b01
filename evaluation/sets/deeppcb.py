"""DeepPCB folders: pairs of a part and its template, boxes with about 10 px of margin around the defect.

`trainval.txt` lists rows `groupX/X/ID.jpg groupX/X_not/ID.txt`; the pictures on disk are `ID_test.jpg` (the
part) and `ID_temp.jpg` (the template); annotation lines are `x1 y1 x2 y2 class`. The split is fixed by board,
because pairs of one board share their layout: `VALIDATION_BOARDS` are held out, all else is for training.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ...runtime.capture.scenes import DEFECT_TYPES
from ...runtime.errors import DataSetError
from ..scores import NamedBox
from .example import Example, Row
from .formats.reading import grey, picture_from_file, text_from_file

VALIDATION_BOARDS = ("group00041", "group92000")
# Class numbers 1..6 of DeepPCB's annotation files, in its README's order.
DEEPPCB_TYPES = DEFECT_TYPES
LISTING = "trainval.txt"


def deeppcb_root(folder: Path) -> Path:
    """The folder that the rows of a DeepPCB list are relative to: `folder` or `folder/PCBData`."""
    if not folder.is_dir():
        raise DataSetError(f"{folder} is not a folder; give a folder of DeepPCB, coco:FILE.json, "
                           "voc:DIR, masks:DIR, labelme:DIR, or scenes:pcb?seed=1&parts=20")
    inner = folder / "PCBData"
    return inner if inner.is_dir() else folder


def deeppcb_rows(folder: Path, split: str, list_path: Path | None = None) -> list[Row]:
    """Rows of a DeepPCB folder; every annotation is read and checked now, the pictures when a row is read."""
    root = deeppcb_root(folder)
    listing = list_path if list_path is not None else root / LISTING
    if not listing.is_file():
        raise DataSetError(f"{listing} does not exist; give --list FILE with rows as the data set has "
                           "them, or another data set: coco:FILE.json, voc:DIR, masks:DIR, labelme:DIR")
    rows = [_deeppcb_row(root, line, f"{listing.name}:{number}")
            for number, line in enumerate(text_from_file(listing).splitlines(), start=1) if line.strip()]
    if list_path is None and split != "all":
        rows = [row for row in rows if (row.group in VALIDATION_BOARDS) == (split == "validation")]
    if not rows:
        boards = ", ".join(VALIDATION_BOARDS)
        raise DataSetError(f"{listing} has no rows of the split {split!r} (validation boards are {boards}); "
                           "use --split all or --list FILE")
    return rows


def _deeppcb_row(root: Path, line: str, where: str) -> Row:
    """A row from one line of a DeepPCB list; DataSetError for a missing file or a wrong annotation."""
    columns = line.split()
    if len(columns) != 2:
        raise DataSetError(f"{where}: expected `picture annotation`, found {line.strip()!r}")
    name, annotation = columns
    stem = root / PurePosixPath(name).with_suffix("")
    suffix = PurePosixPath(name).suffix
    if stem.name.endswith("_test"):  # a list that names the files on disk
        stem = stem.with_name(stem.name[: -len("_test")])
    image_path = stem.with_name(f"{stem.name}_test{suffix}")
    template_path = stem.with_name(f"{stem.name}_temp{suffix}")
    for path in (image_path, template_path, root / annotation):
        if not path.is_file():
            raise DataSetError(f"{where}: {path} does not exist; the row says {line.strip()!r}")
    truth = _deeppcb_truth(root / annotation)
    group = PurePosixPath(name).parts[0]

    def read() -> Example:
        try:
            image, template = grey(picture_from_file(image_path)), grey(picture_from_file(template_path))
        except DataSetError as error:
            raise DataSetError(f"{where}: {error}") from error
        if image.shape != template.shape:
            raise DataSetError(f"{where}: the part is {image.shape} and its template {template.shape} px; "
                               "they must have one size")
        return Example(name, group, image, template, truth)

    return Row(name, group, read)


def _deeppcb_truth(path: Path) -> tuple[NamedBox, ...]:
    """The boxes of one annotation file; an empty file is a part without defects."""
    boxes = []
    for number, line in enumerate(text_from_file(path).splitlines(), start=1):
        fields = line.replace(",", " ").split()
        if not fields:
            continue
        try:
            x1, y1, x2, y2, code = (int(field) for field in fields)
        except ValueError:
            expected = "expected `x1 y1 x2 y2 class`"
            raise DataSetError(f"{path}:{number}: {expected}, found {line!r}") from None
        if not 1 <= code <= len(DEEPPCB_TYPES) or x2 <= x1 or y2 <= y1:
            raise DataSetError(f"{path}:{number}: class must be 1..{len(DEEPPCB_TYPES)} and x1 < x2, "
                               f"y1 < y2; found {line!r}")
        boxes.append(NamedBox(DEEPPCB_TYPES[code - 1], (float(x1), float(y1), float(x2), float(y2))))
    return tuple(boxes)

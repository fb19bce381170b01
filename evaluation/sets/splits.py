"""The two research sets of single pictures, NEU and magnetic tile: one split for training and for scoring.

NEU (Northeastern University, hot-rolled steel, 200 x 200 grey, VOC boxes): within a class, in natural order
of the names, every fifth picture is for validation. Its classes get the names of the research recipe.

Magnetic tile (Huang, Qiu, Yuan 2018; grey photos with a mask each): `expE_num_N` is exposure E, N counts the
frames of one long recording. N differs between exposures of the same tile: they follow each other within some
hundred frames, and those of neighbouring tiles are interleaved. So pictures whose N lie within
`SESSION_FRAMES` of the next are one capture session, and a session is never divided: all exposures of a tile
stay together. Sessions are sorted by N within the rarest class that they show; every fourth is for
validation. (A hash would leave cracks, four sessions in all, to chance.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ...runtime.capture.folder import natural_key
from ...runtime.errors import DataSetError
from .example import Example, Row
from .formats.classes import ClassNames
from .formats.marks import Mark, Sheet, example_from_sheet, fixed_outline, pieces_of_mask
from .formats.reading import grey, picture_from_file, pixels_from_file
from .formats.voc import voc_sheets

SPLITS = ("train", "validation", "all")

NEU_TYPES = ("crazing", "inclusion", "patches", "pitted", "rolled-in", "scratch")
NEU_NAMES = {"pitted_surface": "pitted", "rolled-in_scale": "rolled-in", "scratches": "scratch"}
NEU_EVERY, NEU_AT = 5, 4

MAGNETIC_TYPES = ("blowhole", "break", "crack", "fray", "uneven")
MAGNETIC_FOLDERS = {"MT_Blowhole": "blowhole", "MT_Break": "break", "MT_Crack": "crack", "MT_Fray": "fray",
                    "MT_Uneven": "uneven", "MT_Free": ""}
RAREST_FIRST = ("crack", "fray", "break", "uneven", "blowhole", "")
SESSION_FRAMES = 600
SESSION_EVERY, SESSION_AT = 4, 1
MASK_LEVEL = 127
"""A mask is grey at its edges; what is above this is defect."""


def neu_rows(root: Path, split: str = "validation") -> list[Row]:
    """Rows of NEU under `root` (`images`, `annotations`): grey pictures, boxes as drawn, a label.

    The label is the class in the file's name: some pictures have boxes of a second class. DataSetError.
    """
    _check_split(split)
    sheets = voc_sheets(root, ClassNames(NEU_TYPES, NEU_NAMES))
    of_class: dict[str, list[Sheet]] = {}
    for sheet in sheets:
        of_class.setdefault(_neu_class(sheet.picture), []).append(sheet)
    rows = []
    for label in sorted(of_class):
        for index, sheet in enumerate(sorted(of_class[label], key=lambda one: natural_key(one.name))):
            if split == "all" or (index % NEU_EVERY == NEU_AT) == (split == "validation"):
                rows.append(_grey_row(sheet, label))
    return rows


def is_neu(root: Path) -> bool:
    """Whether the folder is laid out and named as NEU is."""
    pictures = root / "images"
    return (root / "annotations").is_dir() and all(
        next(pictures.glob(f"{name}_*.jpg"), None) for name in ("crazing", *NEU_NAMES))


def magnetic_rows(root: Path, split: str = "validation", box_margin_px: float = 0.0) -> list[Row]:
    """Rows of magnetic tile under `root` (`MT_*/Imgs`): grey pictures, a box around each piece of the mask.

    Good parts (MT_Free) have no box; label is the folder's class, None for them. Pieces of a mask nearer than
    8 px are one defect, pieces of fewer than 10 px none. Pictures of a defect class whose mask is empty are
    left out: nobody knows where their defect is. DataSetError.
    """
    _check_split(split)
    rows = []
    for session, files in sessions_of(_magnetic_files(root), split):
        rows += [_tile_row(root, path, session, box_margin_px) for path in files]
    return rows


def is_magnetic(root: Path) -> bool:
    """Whether the folder is laid out as magnetic tile is."""
    return any((root / name / "Imgs").is_dir() for name in MAGNETIC_FOLDERS)


def sessions_of(files: Iterable[Path], split: str) -> list[tuple[str, list[Path]]]:
    """Name and pictures of every capture session on one side of the split, in order of recording."""
    ordered = sorted(files, key=lambda path: (_frame_number(path), path.name))
    sessions: list[list[Path]] = []
    for path in ordered:
        if not sessions or _frame_number(path) - _frame_number(sessions[-1][-1]) > SESSION_FRAMES:
            sessions.append([])
        sessions[-1].append(path)
    counts = dict.fromkeys(RAREST_FIRST, 0)
    chosen = []
    for session in sessions:
        rarest = min((MAGNETIC_FOLDERS[_magnetic_folder(path)] for path in session), key=RAREST_FIRST.index)
        is_held = counts[rarest] % SESSION_EVERY == SESSION_AT
        counts[rarest] += 1
        if split == "all" or is_held == (split == "validation"):
            chosen.append((f"session{_frame_number(session[0])}", session))
    return chosen


def _tile_row(root: Path, path: Path, session: str, margin_px: float) -> Row:
    name = path.relative_to(root).as_posix()
    kind = MAGNETIC_FOLDERS[_magnetic_folder(path)]

    def read() -> Example:
        image = grey(picture_from_file(path))
        marks: Sequence[Mark] = ()
        if kind:
            pieces = pieces_of_mask(np.asarray(pixels_from_file(path.with_suffix(".png")) > MASK_LEVEL))
            if any(piece.shape != image.shape for piece in pieces):
                raise DataSetError(f"{path.with_suffix('.png')} and {path.name} differ in size")
            marks = [Mark(kind, outline=fixed_outline(piece), is_tight=True) for piece in pieces]
        sheet = Sheet(path, name, session, tuple(marks), str(path), label=kind or None)
        return example_from_sheet(sheet, image, margin_px)

    return Row(name, session, read)


def _magnetic_files(root: Path) -> list[Path]:
    """Pictures that can be used; DataSetError where there is none or a mask is missing."""
    files = []
    for folder, kind in MAGNETIC_FOLDERS.items():
        for path in sorted((root / folder / "Imgs").glob("*.jpg")):
            mask = path.with_suffix(".png")
            if kind and not mask.is_file():
                raise DataSetError(f"{path} has no mask {mask.name} beside it")
            if not kind or pieces_of_mask(np.asarray(pixels_from_file(mask) > MASK_LEVEL)):
                files.append(path)
    if not files:
        raise DataSetError(f"{root} holds no pictures in {', '.join(MAGNETIC_FOLDERS)} (each with Imgs)")
    return files


def _frame_number(path: Path) -> int:
    """N of expE_num_N."""
    match = re.fullmatch(r"exp[0-9]+_num_([0-9]+)", path.stem)
    if match is None:
        raise DataSetError(f"{path}: pictures of magnetic tile are named expE_num_N.jpg")
    return int(match[1])


def _magnetic_folder(path: Path) -> str:
    return path.parent.parent.name


def _neu_class(picture: Path) -> str:
    """The research recipe's name of the class in a file name such as `rolled-in_scale_20`."""
    name = picture.stem.rpartition("_")[0]
    kind = NEU_NAMES.get(name, name)
    if kind not in NEU_TYPES:
        raise DataSetError(f"{picture}: pictures of NEU are named CLASS_NUMBER.jpg; {name!r} is no class")
    return kind


def _grey_row(sheet: Sheet, label: str) -> Row:
    labelled = Sheet(sheet.picture, sheet.name, sheet.group, sheet.marks, sheet.where, sheet.size_wh, label)
    return Row(sheet.name, sheet.group,
               lambda: example_from_sheet(labelled, grey(picture_from_file(sheet.picture)), 0.0))


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise DataSetError(f"the split {split!r} is unknown; choose one of {', '.join(SPLITS)}")

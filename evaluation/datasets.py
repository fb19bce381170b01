"""Data sets as rows of picture, template and true boxes.

Two kinds of source are read:

`DIR` or `DIR/PCBData`           a DeepPCB folder: `trainval.txt` (and `test.txt`, where it is) list rows
                                 `groupX/X/ID.jpg groupX/X_not/ID.txt`; the pictures on disk are `ID_test.jpg`
                                 (the part) and `ID_temp.jpg` (the template); annotation lines are
                                 `x1 y1 x2 y2 class`. The boxes carry about 10 px of margin around the defect.
`scenes:pcb?seed=7&parts=50`     synthetic boards with known truth; further keys `style`, `defects`,
                                 `good` (share of parts without any), `size_px`,
                                 `misregistration_px`. Truth is widened by the caller's margin.

The split of DeepPCB is fixed by board, because pairs of one board share their layout: `VALIDATION_BOARDS` are
held out, everything else in `trainval.txt` is for training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from ..runtime.capture.folder import pairs_in_folder, template_for
from ..runtime.capture.frame import Frame, read_picture
from ..runtime.capture.scenes import DEFECT_TYPES, Scene, pcb_scene
from ..runtime.capture.simulated import is_good, scene_seed
from ..runtime.errors import CaptureError, DataSetError, PictureError
from .scores import NamedBox
from .warp import warp_rng, warp_template

Picture = npt.NDArray[np.uint8]

VALIDATION_BOARDS = ("group00041", "group92000")
SPLITS = ("train", "validation", "all")
# Class numbers 1..6 of DeepPCB's annotation files, in its README's order.
DEEPPCB_TYPES = DEFECT_TYPES
LISTING = "trainval.txt"
SCENE_PREFIX = "scenes:"
SCENES_GROUP = "scenes"
SCENE_KEYS = ("seed", "parts", "style", "defects", "good", "size_px", "misregistration_px", "fps")
WHOLE_KEYS = ("defects", "size_px")
# Added to the seed of scored scenes for those that the CNN floor learns from.
TRAINING_SEED = 5_000


@dataclass(frozen=True)
class Example:
    """One part with its template and truth: pictures uint8 [H, W], boxes (x1, y1, x2, y2) px in the part."""

    name: str
    group: str
    image: Picture
    template: Picture
    truth: tuple[NamedBox, ...]
    is_labelled: bool = True  # without labels an empty truth says nothing
    earlier: tuple[Picture, ...] = ()  # frames of a clip before `image`, oldest first

    def frame(self, sequence: int) -> Frame:
        """The camera frame that the inspector takes; the truth stays behind."""
        return Frame(image=self.image, template=self.template, sequence=sequence, captured_at=0.0,
                     monotonic_ns=0, source=self.group, part_id=self.name, truth=None, mm_per_px=None,
                     is_simulated=self.group == SCENES_GROUP, earlier=self.earlier)


@dataclass(frozen=True)
class Row:
    """One row of a data set: its name as the data set has it, its board, and a way to read it."""

    name: str
    group: str
    read: Callable[[], Example]


def rows_from_source(
    source: str, *, split: str | None = None, list_path: Path | None = None,
    warp_seed: int | None = None, box_margin_px: int = 10, unlabelled: bool = False, clip_frames: int = 1,
) -> list[Row]:
    """The rows of a data set, in its own order; pictures are read when a row is.

    `split` is one of `SPLITS` (default: validation for a DeepPCB folder); `list_path` names a file with rows
    as the data set has them and replaces the split; `warp_seed` gives each template a seeded warped copy;
    `box_margin_px` widens the truth of scenes (DeepPCB's boxes have their margin). `unlabelled` takes a
    folder of pictures without a list too, `clip_frames` at a time. DataSetError names the row that is wrong.
    """
    if split is not None and split not in SPLITS:
        raise DataSetError(f"the split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    if source.startswith(SCENE_PREFIX):
        if list_path is not None or split not in (None, "all"):
            raise DataSetError(f"{source} has no list and no split; choose other scenes by another seed")
        rows = scene_rows(source, box_margin_px)
    elif unlabelled and list_path is None and is_plain_folder(Path(source)):
        return plain_rows(Path(source), clip_frames)
    else:
        rows = deeppcb_rows(Path(source), split or "validation", list_path)
    return rows if warp_seed is None else [warped_row(row, warp_seed) for row in rows]


def is_plain_folder(folder: Path) -> bool:
    """Whether `folder` holds pictures and is no DeepPCB folder."""
    return folder.is_dir() and not (deeppcb_root(folder) / LISTING).is_file()


def plain_rows(folder: Path, clip_frames: int = 1) -> list[Row]:
    """Rows of a folder of pictures, in natural order, nobody having said what is on them.

    `X_test` beside `X_temp` is a pair; any other picture is its own template. With `clip_frames` more than 1,
    so many pictures that follow each other are one row, and a shorter rest is left out.
    """
    try:
        pairs = pairs_in_folder(folder)
    except CaptureError as error:
        raise DataSetError(str(error)) from error
    starts = range(0, len(pairs) - clip_frames + 1, clip_frames)
    if not starts:
        raise DataSetError(f"{folder} holds {len(pairs)} pictures, too few for clips of {clip_frames} frames")
    return [_plain_row([part for part, _ in pairs[at : at + clip_frames]], pairs[at][1]) for at in starts]


def _plain_row(frames: list[Path], template: Path | None) -> Row:
    """One part or clip; its pictures are read when the row is."""
    name, group = frames[-1].name, frames[-1].parent.name

    def read() -> Example:
        try:
            *earlier, image = (read_picture(frame) for frame in frames)
            golden = image if template is None else template_for(image, template, frames[-1])
        except PictureError as error:
            raise DataSetError(str(error)) from error
        return Example(name, group, image, golden, (), is_labelled=False, earlier=tuple(earlier))

    return Row(name, group, read)


def deeppcb_root(folder: Path) -> Path:
    """The folder that the rows of a DeepPCB list are relative to: `folder` or `folder/PCBData`."""
    if not folder.is_dir():
        raise DataSetError(f"{folder} is not a folder; give a DeepPCB folder or scenes:pcb?seed=1&parts=20")
    inner = folder / "PCBData"
    return inner if inner.is_dir() else folder


def deeppcb_rows(folder: Path, split: str, list_path: Path | None = None) -> list[Row]:
    """Rows of a DeepPCB folder; every annotation is read and checked now, the pictures when a row is read."""
    root = deeppcb_root(folder)
    listing = list_path if list_path is not None else root / LISTING
    if not listing.is_file():
        raise DataSetError(f"{listing} does not exist; give --list FILE with rows as the data set has them")
    rows = [_deeppcb_row(root, line, f"{listing.name}:{number}")
            for number, line in enumerate(_text(listing).splitlines(), start=1) if line.strip()]
    if list_path is None and split != "all":
        rows = [row for row in rows if (row.group in VALIDATION_BOARDS) == (split == "validation")]
    if not rows:
        boards = ", ".join(VALIDATION_BOARDS)
        raise DataSetError(f"{listing} has no rows of the split {split!r} (validation boards are {boards}); "
                           "use --split all or --list FILE")
    return rows


def scene_rows(source: str, box_margin_px: int) -> list[Row]:
    """Rows of `scenes:pcb?...`: the parts that the scene camera shows for the same source."""
    options = _scene_options(source)
    seed, parts = int(options.pop("seed")), int(options.pop("parts"))
    if parts < 1 or seed < 0:
        raise DataSetError(f"{source}: seed is {seed} and parts {parts}; give at least 0 and at least 1")
    share = float(options.pop("good", "0"))
    rows = []
    for index in range(parts):
        own = {**options, "defects": "0"} if is_good(index, share) else options
        name = f"scenes-{seed}-{index:04d}"
        rows.append(_scene_row(source, scene_seed(seed, index), name, own, box_margin_px))
    return rows


def training_rows(source: str, scored: Sequence[Row], box_margin_px: int = 10) -> list[Row]:
    """Rows for training the CNN floor that are none of `scored`, and of no board among them.

    A DeepPCB folder gives its training boards; scenes, and a folder without a `trainval.txt`, give 200 scenes
    of other seeds (in the same style where the source is scenes).
    """
    if not source.startswith(SCENE_PREFIX):
        root = deeppcb_root(Path(source))
        if (root / LISTING).is_file():
            boards = {row.group for row in scored}
            rows = [row for row in deeppcb_rows(root, "train") if row.group not in boards]
            if rows:
                return rows
        return scene_rows(f"scenes:pcb?seed={TRAINING_SEED}&parts=200", box_margin_px)
    options = _scene_options(source)
    seed = int(options["seed"]) + TRAINING_SEED
    rest = "".join(f"&{key}={value}" for key, value in options.items() if key not in ("seed", "parts"))
    return scene_rows(f"scenes:pcb?seed={seed}&parts=200{rest}", box_margin_px)


def warped_row(row: Row, warp_seed: int) -> Row:
    """The same row with a warped copy of its template; part and truth unchanged."""

    def read() -> Example:
        example = row.read()
        return replace(example, template=warp_template(example.template, warp_rng(warp_seed, row.name)))

    return replace(row, read=read)


def truth_from_scene(scene: Scene, box_margin_px: int) -> tuple[NamedBox, ...]:
    """The scene's tight boxes widened by `box_margin_px` on every side and clipped to the picture."""
    height, width = scene.image.shape[:2]
    boxes = []
    for defect in scene.defects:
        x1, y1, x2, y2 = defect.bbox_xyxy
        widened = (max(0, x1 - box_margin_px), max(0, y1 - box_margin_px),
                   min(width, x2 + box_margin_px), min(height, y2 + box_margin_px))
        boxes.append(NamedBox(defect.type, tuple(float(value) for value in widened)))
    return tuple(boxes)


def _scene_options(source: str) -> dict[str, str]:
    """The keys of `scenes:pcb?...` as text, `seed` and `parts` filled in; DataSetError for any other key."""
    product, _, query = source[len(SCENE_PREFIX) :].partition("?")
    if product != "pcb":
        raise DataSetError(f"{source}: scenes of {product!r} do not exist; use scenes:pcb?seed=1&parts=20")
    options = {"seed": "1", "parts": "20"}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in SCENE_KEYS:
            raise DataSetError(f"{source}: the key {key!r} is unknown; known are {', '.join(SCENE_KEYS)}")
        if key != "style" and not _is_number(value, key):
            raise DataSetError(f"{source}: {key} is {value!r}; give a number")
        options[key] = value
    options.pop("fps", None)  # a data set has no pace
    return options


def _is_number(text: str, key: str) -> bool:
    """Whether `text` is what `key` needs: a decimal for lengths and rates, else a whole number."""
    try:
        float(text) if key in ("misregistration_px", "fps") else int(text)
    except ValueError:
        return False
    return True


def _scene_row(source: str, seed: int, name: str, options: dict[str, str], box_margin_px: int) -> Row:
    """One scene as a row; it is drawn when it is read."""

    def read() -> Example:
        keywords: dict[str, Any] = {key: int(value) for key, value in options.items() if key in WHOLE_KEYS}
        if "misregistration_px" in options:
            keywords["misregistration_px"] = float(options["misregistration_px"])
        if "style" in options:
            keywords["style"] = options["style"]
        try:
            scene = pcb_scene(seed, **keywords)
        except ValueError as error:
            raise DataSetError(f"{source}: {error}") from error
        truth = truth_from_scene(scene, box_margin_px)
        return Example(name, SCENES_GROUP, scene.image, scene.template, truth)

    return Row(name, SCENES_GROUP, read)


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
            image, template = _grey(read_picture(image_path)), _grey(read_picture(template_path))
        except PictureError as error:
            raise DataSetError(f"{where}: {error}") from error
        if image.shape != template.shape:
            raise DataSetError(f"{where}: the part is {image.shape} and its template {template.shape} px; "
                               "they must have one size")
        return Example(name, group, image, template, truth)

    return Row(name, group, read)


def _deeppcb_truth(path: Path) -> tuple[NamedBox, ...]:
    """The boxes of one annotation file; an empty file is a part without defects."""
    boxes = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
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


def _text(path: Path) -> str:
    """A list's or annotation's text; DataSetError when it is not readable text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataSetError(f"{path} cannot be read as text: {error}") from None


def _grey(picture: Picture) -> Picture:
    """[H, W] from [H, W] or [H, W, 3]: DeepPCB is grey, whatever its JPEGs were saved as."""
    return picture if picture.ndim == 2 else np.ascontiguousarray(picture.mean(axis=2).astype(np.uint8))

"""The one entry to data sets: from the text that names one to its rows.

    DIR or DIR/PCBData           DeepPCB (deeppcb.py)
    coco:FILE.json               COCO; boxes, polygons, run lengths
    voc:DIR, labelme:DIR         an XML file, or a JSON file, a picture
    masks:DIR                    a mask a picture; the class by folder or by pixel value
    neu:DIR, magnetic:DIR        the two research sets, with a fixed split (splits.py)
    scenes:pcb?.., scenes:metal?..    simulated parts with known truth and millimetres (scene_rows.py)

Without its word a data set is recognised by its files where they allow one reading only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...runtime.errors import DataSetError
from ...runtime.recipe import Recipe
from ..warp import warp_rng, warp_template
from .deeppcb import DEEPPCB_TYPES, LISTING, deeppcb_root, deeppcb_rows
from .example import Example, Row
from .formats.classes import ClassNames, class_names
from .formats.coco import coco_file, coco_sheets, is_coco
from .formats.labelme import labelme_files, labelme_sheets
from .formats.marks import rows_from_sheets
from .formats.masks import is_mask_folder, mask_rows
from .formats.reading import text_from_file
from .formats.voc import is_voc, voc_sheets, voc_split
from .plain import plain_rows
from .scene_rows import PRODUCTS, SCENE_PREFIX, scene_options, scene_rows
from .splits import MAGNETIC_TYPES, NEU_TYPES, SPLITS, is_magnetic, is_neu, magnetic_rows, neu_rows

# Added to the seed of scored scenes for those that the CNN floor learns from.
TRAINING_SEED = 5_000
RESEARCH = ("neu", "magnetic")
FORMATS = ("coco", "voc", "labelme", "masks")


@dataclass(frozen=True)
class Place:
    """What a source names: its kind (`deeppcb`, `plain`, one of `RESEARCH` or `FORMATS`) and its path."""

    kind: str
    path: Path


def rows_from_source(
    source: str, *, split: str | None = None, list_path: Path | None = None,
    warp_seed: int | None = None, box_margin_px: int = 10, unlabelled: bool = False, clip_frames: int = 1,
    types: Sequence[str] | None = None, classes: Path | None = None,
) -> list[Row]:
    """The rows of a data set, in its own order; pictures are read when a row is.

    `split` is one of `SPLITS` (default: validation where the data set has one, else all of it); `list_path`
    names a file with rows as the data set has them and replaces the split; `warp_seed` gives each template a
    seeded warped copy; `box_margin_px` widens the truth of scenes, masks and outlines (drawn boxes stand).
    `unlabelled` takes a folder of pictures without labels too, `clip_frames` at a time. `types` are the
    recipe's: a class that is none of them, and that `classes` or a classes.json in the data set does not map
    to one, is an error. DataSetError names the file and the row that is wrong.
    """
    if split is not None and split not in SPLITS:
        raise DataSetError(f"the split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
    if source.startswith(SCENE_PREFIX):
        if list_path is not None or split not in (None, "all"):
            raise DataSetError(f"{source} has no list and no split; choose other scenes by another seed")
        _check_types(source, PRODUCTS[scene_options(source)[0]].types, types)
        rows = scene_rows(source, box_margin_px)
    else:
        place = place_from_source(source, unlabelled=unlabelled and list_path is None)
        if place.kind == "plain":
            return plain_rows(place.path, clip_frames)
        if place.kind == "deeppcb":
            _check_types(source, DEEPPCB_TYPES, types)
            rows = deeppcb_rows(place.path, split or "validation", list_path)
        else:
            rows = _listed(_labelled_rows(place, split, list_path is not None, unlabelled, box_margin_px,
                                          types, classes), list_path)
    if not rows:
        raise DataSetError(f"{source} has no pictures" + (f" in the split {split!r}" if split else ""))
    return rows if warp_seed is None else [warped_row(row, warp_seed) for row in rows]


def place_from_source(source: str, *, unlabelled: bool = False) -> Place:
    """The kind and path of a data set; DataSetError when its files allow two readings, or none.

    With `unlabelled` a folder that is none of the others is one of plain pictures.
    """
    word, colon, rest = source.partition(":")
    if colon and word in (*RESEARCH, *FORMATS, "deeppcb"):
        path = Path(rest)
        if not path.exists():
            raise DataSetError(f"{source}: {path} does not exist")
        return Place(word, path)
    path = Path(source)
    if path.is_file() and is_coco(path):
        return Place("coco", path)
    if path.is_dir():
        if (deeppcb_root(path) / LISTING).is_file():
            return Place("deeppcb", path)
        kinds = _kinds_of_folder(path)
        if len(kinds) > 1:
            ways = " or ".join(f"{kind}:{path}" for kind in kinds)
            raise DataSetError(f"{path} can be read in {len(kinds)} ways; say which: {ways}")
        if kinds:
            return Place(kinds[0], path)
    # What is left is refused by the DeepPCB reader, in its words.
    return Place("plain" if unlabelled and path.is_dir() else "deeppcb", path)


def default_split(source: str) -> str:
    """What is read where no split is asked: `scenes`, `validation` where the data set has one, else `all`."""
    if source.startswith(SCENE_PREFIX):
        return "scenes"
    place = place_from_source(source)
    has_split = place.kind in ("deeppcb", *RESEARCH) or (
        place.kind == "voc" and voc_split(place.path, "validation") is not None)
    return "validation" if has_split else "all"


def calibration_split(source: str) -> str | None:
    """What is read to fit something, where no split is asked: the side that nobody scores on, all of a data
    set without sides (None)."""
    return "train" if default_split(source) == "validation" else None


def training_rows(source: str, scored: Sequence[Row], box_margin_px: int = 10) -> list[Row]:
    """Rows for training the CNN floor that are none of `scored`, and of no board among them.

    A DeepPCB folder gives its training boards; scenes of boards, and a folder without a `trainval.txt`, give
    200 scenes of other seeds (in the same style where the source is scenes).
    """
    if not source.startswith(SCENE_PREFIX):
        place = place_from_source(source)
        if place.kind == "deeppcb" and (deeppcb_root(place.path) / LISTING).is_file():
            boards = {row.group for row in scored}
            rows = [row for row in deeppcb_rows(place.path, "train") if row.group not in boards]
            if rows:
                return rows
        return scene_rows(f"{SCENE_PREFIX}pcb?seed={TRAINING_SEED}&parts=200", box_margin_px)
    product, options = scene_options(source)
    seed = int(options["seed"]) + TRAINING_SEED
    rest = "".join(f"&{key}={value}" for key, value in options.items() if key not in ("seed", "parts"))
    return scene_rows(f"{SCENE_PREFIX}{product}?seed={seed}&parts=200{rest}", box_margin_px)


def warped_row(row: Row, warp_seed: int) -> Row:
    """The same row with a warped copy of its template; part and truth unchanged.

    DataSetError, when it is read, for a part without template.
    """

    def read() -> Example:
        example = row.read()
        if example.template is None:
            raise DataSetError(f"{row.name} has no template, and only those are warped; leave --warp away")
        return replace(example, template=warp_template(example.template, warp_rng(warp_seed, row.name)))

    return replace(row, read=read)


def check_fits(example: Example, recipe: Recipe, source: str) -> None:
    """DataSetError when a recipe that compares meets parts without templates."""
    if recipe.mode == "compare" and example.template is None:
        raise DataSetError(f"{source} has parts without templates ({example.name}), and recipe {recipe.id}"
                           " compares each part with one; choose a recipe of mode single with --recipe, or a"
                           " data set of pairs")
    if recipe.mode == "clip":
        raise DataSetError(f"recipe {recipe.id} looks at clips, and no data set here has labelled clips")


def _check_types(source: str, there: Sequence[str], types: Sequence[str] | None) -> None:
    """DataSetError when a data set of fixed types and a recipe have none in common."""
    if types is not None and not set(types) & set(there):
        raise DataSetError(f"{source} shows {', '.join(there)}, and the recipe knows only {', '.join(types)};"
                           " choose another recipe with --recipe, or another data set")


def _kinds_of_folder(folder: Path) -> list[str]:
    """All readings of a folder that its files allow; a research set is nothing else."""
    if is_magnetic(folder):
        return ["magnetic"]
    if is_neu(folder):
        return ["neu"]
    has_coco = any(is_coco(file) for place in (folder, folder / "annotations")
                   for file in place.glob("*.json"))
    checks: dict[str, Callable[[], bool]] = {
        "coco": lambda: has_coco, "voc": lambda: is_voc(folder),
        "labelme": lambda: bool(labelme_files(folder)), "masks": lambda: is_mask_folder(folder)}
    return [kind for kind, check in checks.items() if check()]


def _labelled_rows(
    place: Place, split: str | None, has_list: bool, unlabelled: bool, box_margin_px: int,
    types: Sequence[str] | None, classes: Path | None,
) -> list[Row]:
    """Rows of a research set or of an annotation format."""
    path = place.path
    side = "all" if has_list else split
    if place.kind in RESEARCH:
        if classes is not None:
            raise DataSetError(f"{path} has its names of classes built in; leave --classes away")
        _check_types(str(path), NEU_TYPES if place.kind == "neu" else MAGNETIC_TYPES, types)
        if place.kind == "neu":
            return neu_rows(path, side or "validation")
        return magnetic_rows(path, side or "validation", box_margin_px)
    names = class_names(types, classes, path.parent if path.is_file() else path)
    if place.kind == "coco":
        path = coco_file(path)
    rows = _format_rows(place.kind, path, names, box_margin_px)
    stems = voc_split(path, side or "validation") if place.kind == "voc" and side != "all" else None
    if stems is not None:
        return [row for row in rows if Path(row.name).stem in stems]
    if side in (None, "all") or unlabelled:
        return rows
    raise DataSetError(f"{path} says nothing about a split {side!r}; use --split all or --list FILE")


def _format_rows(kind: str, path: Path, names: ClassNames, margin_px: float) -> list[Row]:
    if kind == "coco":
        return rows_from_sheets(coco_sheets(path, names), margin_px)
    if not path.is_dir():
        raise DataSetError(f"{path} is no folder; give {kind}:DIR")
    if kind == "voc":
        return rows_from_sheets(voc_sheets(path, names), margin_px)
    if kind == "labelme":
        return rows_from_sheets(labelme_sheets(path, names), margin_px)
    return mask_rows(path, names, margin_px)


def _listed(rows: list[Row], list_path: Path | None) -> list[Row]:
    """Those rows that a file names, one a line, in its order; DataSetError for a name that is not there."""
    if list_path is None:
        return rows
    known = {row.name: row for row in rows}
    chosen = [line.strip() for line in text_from_file(list_path).splitlines() if line.strip()]
    for number, name in enumerate(chosen, start=1):
        if name not in known:
            raise DataSetError(f"{list_path}:{number}: the data set has no picture {name!r}; its names are"
                               f" like {rows[0].name!r}" if rows else f"{list_path}: the data set is empty")
    return [known[name] for name in chosen]

"""A recipe: what to look for on one product, as the plant writes it in `recipe.toml`.

`load_recipe` reads TOML on the workstation; the bundle carries the same recipe as JSON, so that the device
needs no TOML reader. Every key that is not a field here is an error that names the key and its table, because
a misspelt threshold that is silently ignored lets defects pass.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import RecipeError
from .limits import (
    ComplianceRule,
    DefectType,
    Measuring,
    QualityLimits,
    Review,
    Severity,
    check_compliance,
    check_grades,
    check_judging,
    compliance_table,
)
from .tables import dataclass_from_table, json_value, kind_of, toml_table

__all__ = [
    "FRAMES_A_PATCH",
    "RECIPE_ID",
    "Accuracy",
    "CameraSettings",
    "Clip",
    "ComplianceRule",
    "DefectType",
    "Gate",
    "Measuring",
    "QualityLimits",
    "Recipe",
    "Registration",
    "Review",
    "Scale",
    "Severity",
    "Thresholds",
    "Tiling",
    "load_recipe",
    "recipe_from_table",
]

Coordinates = Literal["0-99", "0-1000"]
Mode = Literal["compare", "single", "clip"]
Compare = Literal["temporal", "two_images"]

RECIPE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""It names files and folders."""

FRAMES_A_PATCH = 2
"""Frames that Qwen3-VL joins in one temporal patch: an even clip has half as many pictures as frames."""


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut: square tiles of `tile_px` that own the `stride_px` square in their middle.

    A level is the size of a tile pixel in picture pixels: 0.5 magnifies twice, 2 is half scale.
    `attention_mb` bounds what the attention scores of one engine call may take: 64 on an 8 GB board. It
    bounds the tile at export and the tiles of one call on the device.
    """

    tile_px: int = 128
    stride_px: int = 64
    levels: tuple[float, ...] = (0.5, 1.0, 2.0)
    attention_mb: int = 256


@dataclass(frozen=True)
class Clip:
    """Short clips of mode "clip": how many frames one has, and how many of them a second."""

    frames: int = 4
    fps: float = 2.0


@dataclass(frozen=True)
class Registration:
    """How far the template may lie beside the part: the whole picture first, then each tile on its own."""

    max_shift_px: int = 6
    tile_shift_px: int = 4


@dataclass(frozen=True)
class Gate:
    """A place is looked at when `min_pixels` of it differ from the template by `difference` grey levels.

    The grey levels are those of a picture of full contrast (0-255); the gate scales them to the part's own.
    `min_pixels` = 0 switches the gate off: every tile of the grid goes to the network.
    """

    difference: int = 100
    min_pixels: int = 3


@dataclass(frozen=True)
class CameraSettings:
    """Camera settings that the recipe locks; None leaves the camera as it is."""

    exposure_us: float | None = None
    gain: float | None = None


@dataclass(frozen=True)
class Scale:
    """Millimetres per pixel of the part picture; None: the frame's own scale, or sizes stay unknown.

    `standard_uncertainty_mm_per_px` (k = 1) goes into every size; without it nothing is shown to meet a
    standard. A calibrated scale of the site, with distortion and perspective, stands in service.toml and goes
    before this one.
    """

    mm_per_px: float | None = None
    standard_uncertainty_mm_per_px: float | None = None


@dataclass(frozen=True)
class Thresholds:
    """Probabilities and overlaps between 0 and 1 that decide what is looked at, reported and reviewed.

    candidate: dense presence that sends a tile to the decoder; presence: that reports a defect where the
    dense head runs without the words; dense_alone: the same where the words looked and did not name it;
    words: confidence of the words without the dense head; both: weighted confidence where the two agree.
    """

    candidate: float = 0.05
    presence: float = 0.4
    dense_alone: float = 0.97
    words: float = 0.5
    both: float = 0.35
    review_confidence: float = 0.85
    nms_iou: float = 0.3


@dataclass(frozen=True)
class Accuracy:
    """How far INT8 may be from the float graphs; export fails beyond it.

    min_cosine: of every output of every graph. min_token_agreement: share of the decoder's choices that INT8
    takes as float does, led along float's answers. max_f_loss: of F over the labelled pictures (0.005 is half
    a point). docs/int8.md says what the defaults rest on.
    """

    min_cosine: float = 0.99
    min_token_agreement: float = 0.97
    max_f_loss: float = 0.005


@dataclass(frozen=True)
class Recipe:
    """Everything that one product needs; `examples/reference/pcb-compare.toml` explains each key.

    `mode`: "compare" looks at a part beside its template, "single" at the part alone, "clip" at a few frames
    of one place. `compare`: template and part as the two frames of one patch ("temporal", with the
    `difference_channel`), or as "two_images", the template first; None: export chooses what the checkpoint
    can do.
    `box_margin_px`: boxes that the model draws carry this margin around the tight defect.
    `template`: "frame" when every frame brings its own golden template, else the path of a picture.
    """

    id: str
    version: str
    product: str
    prompt: str
    defects: tuple[DefectType, ...] = field(metadata={"table": "defect"})
    mode: Mode = "compare"
    compare: Compare | None = None
    template: str = "frame"
    difference_channel: bool = True
    coordinates: Coordinates = "0-99"
    box_margin_px: int = 10
    max_defects_per_tile: int = 8
    token_budget: int = 256
    free_text: bool = False
    clip: Clip = field(default_factory=Clip)
    tiling: Tiling = field(default_factory=Tiling)
    registration: Registration = field(default_factory=Registration)
    gate: Gate = field(default_factory=Gate)
    camera: CameraSettings = field(default_factory=CameraSettings)
    scale: Scale = field(default_factory=Scale)
    thresholds: Thresholds = field(default_factory=Thresholds)
    accuracy: Accuracy = field(default_factory=Accuracy)
    measure: Measuring = field(default_factory=Measuring)
    compliance: ComplianceRule | None = None
    review: Review = field(default_factory=Review)
    quality: QualityLimits = field(default_factory=QualityLimits)

    @property
    def types(self) -> tuple[str, ...]:
        """The defect types in the recipe's order."""
        return tuple(defect.type for defect in self.defects)

    @property
    def pictures(self) -> int:
        """Pictures that stand in one tile's prompt: one, template and part, or one for two frames."""
        if self.mode == "clip":
            return -(-self.clip.frames // FRAMES_A_PATCH)
        return 2 if self.mode == "compare" and self.compare == "two_images" else 1

    @property
    def sha256(self) -> str:
        """Hash of the canonical JSON form; the same whether the recipe came from TOML or from a bundle."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def defect(self, type: str) -> DefectType:
        """The entry of one type; RecipeError when the recipe has no such type."""
        for entry in self.defects:
            if entry.type == type:
                return entry
        raise RecipeError(f"recipe {self.id} has no defect type {type!r}; it has {', '.join(self.types)}")

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: str = "recipe.json") -> Recipe:
        """The recipe that `to_json` wrote; RecipeError, starting with `where`, on anything else."""
        try:
            table = json_value(text)
        except ValueError as error:
            raise RecipeError(f"{where}: not JSON ({error})") from error
        if not isinstance(table, dict):
            raise RecipeError(f"{where}: expected an object, found {kind_of(table)}")
        return recipe_from_table(table, where)


def load_recipe(path: str | Path) -> Recipe:
    """Read `recipe.toml`; RecipeError names the file and the key that is wrong."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror}); give the path of a recipe.toml"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text; a recipe is a TOML file") from error
    return recipe_from_table(toml_table(text, str(path), RecipeError), str(path))


def recipe_from_table(table: dict[str, Any], where: str) -> Recipe:
    """The recipe in a table as TOML or JSON gives it; its entries stand under `defect` or `defects`."""
    if "defect" in table and "defects" in table:
        raise RecipeError(f"{where}: both 'defect' and 'defects' are given; keep the [[defect]] entries")
    table = {("defects" if key == "defect" else key): value for key, value in table.items()}
    if "compliance" in table:
        table["compliance"] = compliance_table(table["compliance"], where)
    recipe: Recipe = dataclass_from_table(Recipe, table, where, RecipeError)
    _check(recipe, where)
    return recipe


def _check(recipe: Recipe, where: str) -> None:
    """Values that have the right type and still make no sense."""
    if not RECIPE_ID.fullmatch(recipe.id):
        raise RecipeError(
            f"{where}: id is {recipe.id!r}; it names files, so use letters, digits, '.', '_', '-'"
        )
    if not recipe.defects:
        raise RecipeError(f"{where}: no defect types; add at least one [[defect]]")
    seen: set[str] = set()
    for defect in recipe.defects:
        if defect.type in seen:
            raise RecipeError(
                f"{where}: defect type {defect.type!r} is given twice; keep one [[defect]] of it"
            )
        seen.add(defect.type)
        if not defect.type.strip() or json.dumps(defect.type, ensure_ascii=False) != f'"{defect.type}"':
            raise RecipeError(
                f"{where}: defect type {defect.type!r} must be a word without quotes or control signs"
            )
    if recipe.free_text:
        raise RecipeError(f"{where}: free_text is true; this version only answers in the recipe's schema")
    if recipe.mode != "compare" and recipe.compare is not None:
        raise RecipeError(
            f"{where}: compare is {recipe.compare!r}, but mode is {recipe.mode!r}; remove the one, or set"
            " mode = 'compare'"
        )
    check_grades(recipe.defects, where)
    check_compliance(recipe.compliance, recipe.types, where)
    check_judging(recipe.measure, recipe.review, recipe.quality, where)
    _check_numbers(recipe, where)


def _check_numbers(recipe: Recipe, where: str) -> None:
    """Numbers outside their range, and those that contradict each other."""
    tiling, thresholds = recipe.tiling, recipe.thresholds
    minima: dict[str, tuple[float, float]] = {
        "box_margin_px": (recipe.box_margin_px, 0),
        "max_defects_per_tile": (recipe.max_defects_per_tile, 1),
        "token_budget": (recipe.token_budget, 1),
        "tiling.tile_px": (tiling.tile_px, 1),
        "tiling.stride_px": (tiling.stride_px, 1),
        "tiling.attention_mb": (tiling.attention_mb, 1),
        "clip.frames": (recipe.clip.frames, 2),
        "registration.max_shift_px": (recipe.registration.max_shift_px, 0),
        "registration.tile_shift_px": (recipe.registration.tile_shift_px, 0),
        "gate.difference": (recipe.gate.difference, 0),
        "gate.min_pixels": (recipe.gate.min_pixels, 0),
    }
    for key, (value, least) in minima.items():
        if value < least:
            raise RecipeError(f"{where}: {key} is {value}; it must be at least {least:g}")
    for level in tiling.levels or (0.0,):
        if level not in (0.25, 0.5) and not (level >= 1 and level == int(level)):
            raise RecipeError(
                f"{where}: tiling.levels holds {level:g}; use 0.25, 0.5 or whole numbers from 1"
            )
    if tiling.stride_px > tiling.tile_px:
        raise RecipeError(
            f"{where}: tiling.stride_px is {tiling.stride_px}, larger than tile_px {tiling.tile_px};"
            " tiles would leave gaps"
        )
    shares: dict[str, Any] = {"thresholds": thresholds, "accuracy": recipe.accuracy}
    for table, entries in shares.items():
        for key, value in dataclasses.asdict(entries).items():
            if not 0 <= value <= 1:
                raise RecipeError(f"{where}: {table}.{key} is {value}; it must lie between 0 and 1")
    spread = recipe.scale.standard_uncertainty_mm_per_px
    if spread is not None and not (math.isfinite(spread) and spread >= 0):
        raise RecipeError(
            f"{where}: scale.standard_uncertainty_mm_per_px is {spread}; it must be at least 0"
        )
    positive = {
        "scale.mm_per_px": recipe.scale.mm_per_px,
        "camera.exposure_us": recipe.camera.exposure_us,
        "clip.fps": recipe.clip.fps,
    }
    for key, optional in positive.items():
        if optional is not None and not (math.isfinite(optional) and optional > 0):
            raise RecipeError(f"{where}: {key} is {optional}; it must be more than 0 and finite")

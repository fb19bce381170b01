"""Training tiles without a template: metal scenes, and real surfaces for the research checkpoint.

A tile is any window on one of the levels of the recipe; where the device's grid will lie is not known. It
answers for the boxes whose centre it owns and whose size suits its level, as `answers_for` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from orinspect.evaluation.sets.splits import magnetic_rows, neu_rows
from orinspect.examples.reference.training.marks import UNKNOWN, UNKNOWN_MARKS
from orinspect.examples.reference.training.samples import BOX_MARGIN_PX, TILE_PX
from orinspect.examples.reference.training.tasks import SCENE_TYPES
from orinspect.runtime.capture.scenes.metal import metal_scene
from orinspect.runtime.infer.pictures.register import window_at
from orinspect.runtime.infer.pictures.tiles import frame_pixels, level_pictures, tile_grid
from orinspect.runtime.infer.pictures.views import rgb

ByteArray = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]

OWNED_PX, LEVELS, REAL_LEVELS = 96, (1.0, 2.0, 4.0), (1.0, 2.0)  # as the shipped recipes
LEAST_PX, MOST_PX = 12.0, 80.0  # longest side on the tile; the finest and the coarsest level know no bound
DEFECT_SHARE = 0.45  # of the tiles drawn around a box, where a picture has one: a line shows fewer
THIN_TYPES, THIN_FACTOR = ("scratch", "crack"), 2.5  # thin lines are learnt last: drawn more often


@dataclass(frozen=True)
class Surface:
    """A picture in memory: `levels` {level: [h, w, 3] uint8 RGB}, `boxes` [n, 5] x1 y1 x2 y2 type in px.

    `marks` {level: [h, w] uint8}: 0 sound, 1 + type where the true mask is, all UNKNOWN without masks.
    """

    levels: dict[float, ByteArray]
    marks: dict[float, ByteArray]
    boxes: Boxes
    shares: npt.NDArray[np.float64]  # [n] of the boxes, how often each is drawn
    real: bool


@dataclass(frozen=True)
class SurfaceTile:
    """`image` [128, 128, 3] uint8 RGB; `boxes` [n, 5] in tile pixels: those it answers for.

    `left_out` [m, 5]: those in its middle that another level answers for. Whether this one sees them is its
    own affair: how far a picture was reduced is hard to tell from a tile. `marks` [128, 128] uint8.
    """

    image: ByteArray
    boxes: Boxes
    left_out: Boxes
    marks: ByteArray = field(default_factory=lambda: UNKNOWN_MARKS)

    @property
    def pixels(self) -> ByteArray:
        """[3, 2, 128, 128] uint8: a still, the same frame twice."""
        return frame_pixels(self.image[None], self.image[None])[0]


def training_scene(seed: int, types: Sequence[str]) -> Surface:
    """A metal scene with more on it than a line shows: most of the time goes into drawing the surface."""
    rng = np.random.default_rng(seed)
    size_px, defects = int(rng.choice((320, 384, 512))), int(rng.choice((0, 3, 4, 5, 6, 6)))
    return scene_surface(seed, types, size_px=size_px, defects=defects)


def scene_surface(
    seed: int, types: Sequence[str], *, size_px: int = 512, defects: int | None = None
) -> Surface:
    """One metal scene, its boxes widened as the recipe says."""
    scene = metal_scene(seed, size_px=size_px, defects=defects)
    boxes = [[*map(float, defect.bbox_xyxy), types.index(defect.type)] for defect in scene.defects]
    marks = np.zeros(scene.image.shape[:2], np.uint8)
    for defect in scene.defects:
        x1, y1, x2, y2 = defect.bbox_xyxy
        marks[y1:y2, x1:x2][defect.mask] = 1 + types.index(defect.type)
    return _surface(scene.image, boxes, marks, LEVELS, BOX_MARGIN_PX, real=False)


def real_surfaces(root: Path, types: Sequence[str], split: str) -> dict[str, list[Surface]]:
    """NEU's and magnetic tile's pictures of one side of their fixed splits (research use only)."""
    sources = {"neu": neu_rows(root / "neu-det", split), "tile": magnetic_rows(root / "magnetic-tile", split)}
    surfaces: dict[str, list[Surface]] = {}
    for name, rows in sources.items():
        margin = BOX_MARGIN_PX if name == "tile" else 0  # NEU's boxes are loose as they are
        surfaces[name] = []
        for row in rows:
            example = row.read()
            boxes = [[*box.bbox_xyxy, types.index(box.type)] for box in example.truth]
            marks = np.full(example.image.shape[:2], UNKNOWN if name == "neu" else 0, np.uint8)
            for box, mask in zip(example.truth, example.masks, strict=False):
                if mask is not None:
                    marks[mask] = 1 + types.index(box.type)
            surfaces[name].append(_surface(example.image, boxes, marks, REAL_LEVELS, margin, real=True))
    return surfaces


def _surface(
    image: ByteArray,
    boxes: list[list[float]],
    marks: ByteArray,
    levels: tuple[float, ...],
    margin_px: int,
    *,
    real: bool,
) -> Surface:
    height, width = image.shape[:2]
    table = np.array(boxes, np.float32).reshape(-1, 5)
    table[:, :2] = np.maximum(table[:, :2] - margin_px, 0)
    table[:, 2] = np.minimum(table[:, 2] + margin_px, width)
    table[:, 3] = np.minimum(table[:, 3] + margin_px, height)
    pictures = level_pictures(rgb(image), levels)
    thin = [SCENE_TYPES.index(name) for name in THIN_TYPES]
    weights = np.where(np.isin(table[:, 4], thin), THIN_FACTOR, 1.0)
    reduced = {each: _reduced(marks, pictures[each]) for each in levels}
    return Surface(pictures, reduced, table, weights / max(weights.sum(), 1.0), real)


def _reduced(marks: ByteArray, picture: ByteArray) -> ByteArray:
    """Marks in the size of `picture`: a pixel that shows any of a defect has its mark."""
    height, width = picture.shape[:2]
    factor = marks.shape[1] // width
    grown = cv2.dilate(marks, np.ones((factor, factor), np.uint8)) if factor > 1 else marks
    return np.asarray(cv2.resize(grown, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def owns(boxes: Boxes) -> npt.NDArray[np.bool_]:
    """Which boxes [n, 5], in tile pixels, are centred in what a tile owns."""
    x, y = boxes[:, [0, 2]].mean(1), boxes[:, [1, 3]].mean(1)
    low, high = (TILE_PX - OWNED_PX) / 2, (TILE_PX + OWNED_PX) / 2
    return np.asarray((x >= low) & (x < high) & (y >= low) & (y < high))


def fits(boxes: Boxes, level: float, levels: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Which boxes [n, 5], in pixels of a tile on `level`, have a size that the level answers for."""
    longest = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    small = (longest < LEAST_PX) & (level > min(levels))
    large = (longest > MOST_PX) & (level < max(levels))
    return np.asarray(~small & ~large)


def tile_from_surface(surface: Surface, rng: np.random.Generator) -> SurfaceTile:
    """A random tile, around a box of a level that suits it or anywhere; turned, and in another light."""
    levels = tuple(surface.levels)
    level = levels[int(rng.integers(len(levels)))]
    if len(surface.boxes) and rng.random() < DEFECT_SHARE:
        box = surface.boxes[int(rng.choice(len(surface.boxes), p=surface.shares))]
        longest = float(max(box[2] - box[0], box[3] - box[1]))
        suited = [
            each
            for each in levels
            if (longest >= LEAST_PX * each or each == min(levels))
            and (longest <= MOST_PX * each or each == max(levels))
        ]
        level = suited[int(rng.integers(len(suited)))]
        away = rng.uniform(-OWNED_PX / 2, OWNED_PX / 2, 2)
        middle = (box[:2] + box[2:4]) / 2 / level + away
    else:
        height, width = surface.levels[level].shape[:2]
        middle = rng.uniform((0, 0), (width, height))
    zoom = float(rng.uniform(0.8, 1.25)) if surface.real else 1.0  # few real pictures: other distances too
    side = round(TILE_PX * zoom)
    left, top = (int(value) for value in np.floor(middle - side / 2))
    tile = _tile_at(surface, level, left, top, side)
    return _turned(disturbed_light(tile, rng), int(rng.integers(8)))


def grid_tiles(surface: Surface) -> list[SurfaceTile]:
    """Every tile of the device's grid, as it is."""
    height, width = surface.levels[1.0].shape[:2]
    tiles = tile_grid(width, height, TILE_PX, OWNED_PX, tuple(surface.levels))
    return [_tile_at(surface, tile.level, tile.left, tile.top) for tile in tiles]


def _tile_at(surface: Surface, level: float, left: int, top: int, side: int = TILE_PX) -> SurfaceTile:
    """The window of `side` pixels of a level as a tile, with the boxes that it answers for."""
    boxes = surface.boxes.copy()
    boxes[:, :4] = boxes[:, :4] / level - np.array([left, top, left, top], np.float32)
    boxes[:, :4] *= TILE_PX / side
    suited = fits(boxes, level, tuple(surface.levels))
    owned = owns(boxes)
    boxes[:, :4] = np.clip(boxes[:, :4], 0, TILE_PX)
    window = window_at(surface.levels[level], left, top, side)
    if side != TILE_PX:
        way = cv2.INTER_AREA if side > TILE_PX else cv2.INTER_LINEAR
        window = np.asarray(cv2.resize(window, (TILE_PX, TILE_PX), interpolation=way), np.uint8)
    marks = window_at(surface.marks[level], left, top, side)
    if side != TILE_PX:
        marks = np.asarray(cv2.resize(marks, (TILE_PX, TILE_PX), interpolation=cv2.INTER_NEAREST), np.uint8)
    return SurfaceTile(window, boxes[owned & suited], boxes[owned & ~suited], marks)


def disturbed_light(tile: SurfaceTile, rng: np.random.Generator) -> SurfaceTile:
    """Gain, gamma, colour cast, blur and noise of half of the tiles: another camera, another lamp."""
    if rng.random() < 0.5:
        return tile
    image: npt.NDArray[np.floating] = tile.image.astype(np.float32)
    if rng.random() < 0.7:
        gain = rng.uniform(0.75, 1.25) * rng.uniform(0.94, 1.06, 3)
        image = 255 * np.clip(image / 255 * gain, 0, 1) ** rng.uniform(0.8, 1.25)
    if rng.random() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.9))), np.float32)
    if rng.random() < 0.4:
        image = image + rng.normal(0, rng.uniform(1, 5), image.shape)
    return replace(tile, image=np.clip(image + 0.5, 0, 255).astype(np.uint8))


def _turned(tile: SurfaceTile, turn: int) -> SurfaceTile:
    """One of the eight symmetries of the square."""
    image, marks, boxes = tile.image, tile.marks, np.concatenate([tile.boxes, tile.left_out])
    if turn & 1:
        image, marks = image[:, ::-1], marks[:, ::-1]
        boxes[:, [0, 2]] = TILE_PX - boxes[:, [2, 0]]
    if turn & 2:
        image, marks = image[::-1], marks[::-1]
        boxes[:, [1, 3]] = TILE_PX - boxes[:, [3, 1]]
    if turn & 4:
        image, marks = image.transpose(1, 0, 2), marks.T
        boxes[:, [0, 1, 2, 3]] = boxes[:, [1, 0, 3, 2]]
    count = len(tile.boxes)
    return SurfaceTile(np.ascontiguousarray(image), boxes[:count], boxes[count:], np.ascontiguousarray(marks))

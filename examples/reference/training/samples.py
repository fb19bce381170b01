"""Training samples: registered 128x128 tile pairs with their boxes, from scenes and from real pairs.

Real pairs and scenes pass through the same registration and gate as on the device, after a template warp,
blur and re-thresholding, so the network sees in training what it will see at the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from orinspect.evaluation.warp import warp_template
from orinspect.examples.reference.training.marks import UNKNOWN_MARKS
from orinspect.runtime.capture.scenes import DEFECT_TYPES, pcb_scene
from orinspect.runtime.infer.pictures.register import (
    clusters_of_differences,
    seen_after_shift,
    shift_between,
)
from orinspect.runtime.infer.pictures.tiles import (
    Tile,
    gate_threshold,
    pair_pixels,
    shifted,
    tile_pair,
    tiles_on_boxes,
)

ByteArray = npt.NDArray[np.uint8]
TILE_PX = 128
ROOM_PX = 24  # around the tile of a crop, to move it in training
BOX_MARGIN_PX = 10
VALIDATION_GROUPS = ("group00041", "group92000")
TUNING_EVERY = 20  # every 20th pair of the training boards is kept out of training, to choose thresholds on
COARSE_PX = 24.0  # a coarse tile answers for boxes at least this long on it
OWNED_PX, LEVELS, GATE_DIFFERENCE, GATE_PIXELS = 64, (0.5, 1.0, 2.0), 100, 3  # as the shipped recipe
MAX_SHIFT_PX, TILE_SHIFT_PX = 6, 4  # as the shipped recipe


@dataclass(frozen=True)
class Board:
    """A pair in memory: `template`, `part` [H, W] uint8; `boxes` [n, 5] x1 y1 x2 y2 type, with margin."""

    template: ByteArray
    part: ByteArray
    boxes: npt.NDArray[np.float32]
    real: bool


def scene_board(seed: int) -> Board:
    """One scene as a board; a third of them grey camera pictures."""
    style: Literal["binary", "grey"] = "grey" if seed % 3 == 0 else "binary"
    scene = pcb_scene(seed, style=style)
    height, width = scene.image.shape
    rows = [
        [
            max(x1 - BOX_MARGIN_PX, 0),
            max(y1 - BOX_MARGIN_PX, 0),
            min(x2 + BOX_MARGIN_PX, width),
            min(y2 + BOX_MARGIN_PX, height),
            DEFECT_TYPES.index(defect.type),
        ]
        for defect in scene.defects
        for x1, y1, x2, y2 in [defect.bbox_xyxy]
    ]
    return Board(scene.template, scene.image, np.array(rows, np.float32).reshape(-1, 5), False)


def deeppcb_paths(root: Path, subset: str) -> list[Path]:
    """Part pictures of "validation" (two boards), or of "training" or "tuning" (the other boards)."""
    paths = sorted(root.glob("PCBData/group*/*/*_test.jpg"))
    if not paths:
        raise SystemExit(f"{root}: no PCBData/group*/*/*_test.jpg; give the folder of DeepPCB")
    held_out = [path for path in paths if path.parts[-3] in VALIDATION_GROUPS]
    if subset == "validation":
        return held_out
    others = [path for path in paths if path.parts[-3] not in VALIDATION_GROUPS]
    return [path for index, path in enumerate(others) if (index % TUNING_EVERY == 0) == (subset == "tuning")]


def deeppcb_boards(root: Path, subset: str) -> list[Board]:
    """The real pairs of one subset of the fixed split (research use only), read in place."""
    boards = []
    for part_path in deeppcb_paths(root, subset):
        name = part_path.name.replace("_test.jpg", "")
        truth = part_path.parent.parent / f"{part_path.parent.name}_not" / f"{name}.txt"
        rows = [[float(v) for v in line.split()] for line in truth.read_text().splitlines() if line.strip()]
        boxes = np.array(rows, np.float32).reshape(-1, 5)
        boxes[:, 4] -= 1  # classes 1..6 in DEFECT_TYPES' order
        part = cv2.imread(str(part_path), cv2.IMREAD_GRAYSCALE)
        template = cv2.imread(str(part_path.with_name(f"{name}_temp.jpg")), cv2.IMREAD_GRAYSCALE)
        boards.append(Board(np.asarray(template, np.uint8), np.asarray(part, np.uint8), boxes, True))
    return boards


@dataclass(frozen=True)
class Crop:
    """A registered pair around one tile, with room to move: `template`, `part` [176, 176] uint8.

    `boxes` [n, 5]: every box of the board in pixels of the middle 128 px tile, whether it lies on it or not.
    """

    template: ByteArray
    part: ByteArray
    boxes: npt.NDArray[np.float32]
    level: float


@dataclass(frozen=True)
class Sample:
    """`template`, `part` [128, 128] uint8 registered; `boxes` [n, 5] in tile pixels: those it owns."""

    template: ByteArray
    part: ByteArray
    boxes: npt.NDArray[np.float32]

    @property
    def left_out(self) -> npt.NDArray[np.float32]:
        """[0, 5]: boxes that do not suit the level are learnt as background."""
        return np.zeros((0, 5), np.float32)

    @property
    def marks(self) -> ByteArray:
        """[128, 128]: no masks of boards are asked for."""
        return UNKNOWN_MARKS

    @property
    def pixels(self) -> ByteArray:
        """[3, 2, 128, 128] uint8: template and part as two frames, their difference as third channel."""
        return pair_pixels(self.template[None], self.part[None], True)[0]


def crops_from_board(board: Board, rng: np.random.Generator | None) -> list[Crop]:
    """The tiles that the device would look at on this board, disturbed first when `rng` is given.

    As many tiles without a defect are kept as with one, and at least two.
    """
    template, part = board.template, board.part
    if rng is not None:
        template, part = _disturbed(template, part, board.real, rng)
    dx, dy = shift_between(template, part, MAX_SHIFT_PX)
    template = shifted(template, dx, dy)
    height, width = part.shape
    clusters = clusters_of_differences(
        template,
        part,
        gate_threshold(part, GATE_DIFFERENCE),
        GATE_PIXELS,
        TILE_SHIFT_PX,
        seen_after_shift(height, width, dx, dy),
    )
    tiles = list(tiles_on_boxes(clusters, TILE_PX, OWNED_PX, LEVELS))
    if rng is not None:
        tiles = _balanced(tiles, board.boxes, rng)
    scaled = {0.5: (template, part), 1: (template, part), 2: (_half(template), _half(part))}
    crops = []
    for tile in tiles:
        level_template, level_part = scaled[tile.level]
        pair = tile_pair(level_template, level_part, tile, TILE_PX, TILE_SHIFT_PX, ROOM_PX)
        boxes = board.boxes.copy()
        boxes[:, [0, 2]] = boxes[:, [0, 2]] / tile.level - tile.left
        boxes[:, [1, 3]] = boxes[:, [1, 3]] / tile.level - tile.top
        crops.append(Crop(*pair, boxes, tile.level))
    return crops


def sample_from_crop(crop: Crop, rng: np.random.Generator | None) -> Sample:
    """A tile of a crop: moved a little and turned when `rng` is given, else the middle as it is."""
    dx = dy = turn = 0
    if rng is not None:
        reach = 24 if rng.random() < 0.12 else 8
        dx, dy = (int(v) for v in rng.integers(-reach, reach + 1, 2))
        turn = int(rng.integers(8))
    boxes = crop.boxes - np.array([dx, dy, dx, dy, 0], np.float32)
    x, y = boxes[:, [0, 2]].mean(1), boxes[:, [1, 3]].mean(1)
    low, high = (TILE_PX - OWNED_PX) / 2, (TILE_PX + OWNED_PX) / 2
    longest = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    owned = (x >= low) & (x < high) & (y >= low) & (y < high)
    boxes = boxes[owned & ((crop.level == min(LEVELS)) | (longest >= COARSE_PX))]
    boxes[:, :4] = np.clip(boxes[:, :4], 0, TILE_PX)
    where = np.s_[ROOM_PX + dy : ROOM_PX + dy + TILE_PX, ROOM_PX + dx : ROOM_PX + dx + TILE_PX]
    template, part, boxes = _turned(crop.template[where], crop.part[where], boxes, turn)
    return Sample(np.ascontiguousarray(template), np.ascontiguousarray(part), boxes)


def _balanced(tiles: list[Tile], boxes: npt.NDArray[np.float32], rng: np.random.Generator) -> list[Tile]:
    """All tiles that own a defect and as many without one, at least two."""
    middles = [(float(b[0] + b[2]) / 2, float(b[1] + b[3]) / 2) for b in boxes]
    full: list[Tile] = []
    empty: list[Tile] = []
    for tile in tiles:
        x1, y1, x2, y2 = (v * tile.level for v in tile.owned_xyxy)
        holds = any(x1 <= x < x2 and y1 <= y < y2 for x, y in middles)
        (full if holds else empty).append(tile)
    rng.shuffle(empty)
    return full + empty[: max(2, len(full))]


def _half(picture: ByteArray) -> ByteArray:
    size = (picture.shape[1] // 2, picture.shape[0] // 2)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _disturbed(
    template: ByteArray, part: ByteArray, real: bool, rng: np.random.Generator
) -> tuple[ByteArray, ByteArray]:
    """Innocent differences: template shifted and bent, part blurred and thresholded again, light."""
    binary = bool(np.mean((part > 64) & (part < 192)) < 0.06)
    if rng.random() < (0.6 if real else 0.3):
        template = warp_template(template, rng, max_shift_px=4.0)
    if binary and rng.random() < 0.3:
        sigma, threshold = rng.uniform(0.6, 1.3), rng.uniform(90, 165)
        blurred = cv2.GaussianBlur(part, (0, 0), sigma)
        part = np.where(blurred > threshold, 255, 0).astype(np.uint8)
    if not binary and rng.random() < 0.5:
        gain, offset = rng.uniform(0.85, 1.15), rng.uniform(-15, 15)
        part = np.clip(part * gain + offset, 0, 255).astype(np.uint8)
    return template, part


def _turned(
    template: ByteArray, part: ByteArray, boxes: npt.NDArray[np.float32], turn: int
) -> tuple[ByteArray, ByteArray, npt.NDArray[np.float32]]:
    """One of the eight symmetries of the square."""
    boxes = boxes.copy()
    if turn & 1:
        template, part = template[:, ::-1], part[:, ::-1]
        boxes[:, [0, 2]] = TILE_PX - boxes[:, [2, 0]]
    if turn & 2:
        template, part = template[::-1], part[::-1]
        boxes[:, [1, 3]] = TILE_PX - boxes[:, [3, 1]]
    if turn & 4:
        template, part = template.T, part.T
        boxes[:, [0, 1, 2, 3]] = boxes[:, [1, 0, 3, 2]]
    return template, part, boxes

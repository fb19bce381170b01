"""Training samples: registered 128x128 tile pairs with their boxes, from scenes and from real pairs.

Real pairs and scenes pass through the same registration and gate as on the device, after a template warp, blur and
re-thresholding, so the network sees in training what it will see at the line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from orinspect.evaluation.warp import warp_template
from orinspect.runtime.capture.scenes import DEFECT_TYPES, pcb_scene
from orinspect.runtime.infer.register import template_tile, window_at
from orinspect.runtime.infer.tiles import differs

ByteArray = npt.NDArray[np.uint8]
TILE_PX = 128
CONTEXT_PX = 16  # around a template tile: room for warp and registration
BOX_MARGIN_PX = 10
VALIDATION_GROUPS = ("group00041", "group92000")
TUNING_EVERY = 20  # every 20th pair of the training boards is kept out of training, to choose thresholds on
COARSE_SHARE = 0.12
SMALLEST_LABELLED_PX = 22.0  # a box that is smaller than this on the tile is left to the finer level


@dataclass(frozen=True)
class Board:
    """A pair in memory: `template`, `part` [H, W] uint8; `boxes` [n, 5] float32 x1 y1 x2 y2 type, margin included."""

    template: ByteArray
    part: ByteArray
    boxes: npt.NDArray[np.float32]
    real: bool


def scene_board(seed: int) -> Board:
    """One scene as a board; a third of them grey camera pictures."""
    style = "grey" if seed % 3 == 0 else "binary"
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
class Sample:
    """`template`, `part` [128, 128] uint8 registered; `boxes` [n, 5] in tile pixels, clipped to the tile."""

    template: ByteArray
    part: ByteArray
    boxes: npt.NDArray[np.float32]


def sample_from_board(board: Board, rng: np.random.Generator) -> Sample | None:
    """A random tile of a board, augmented; None when the gate would have passed it unseen."""
    coarse = rng.random() < COARSE_SHARE
    level = 2 if coarse else 1
    size = TILE_PX * level
    height, width = board.part.shape
    left, top = _origin(board, size, rng)
    left, top = int(np.clip(left, 0, width - size)), int(np.clip(top, 0, height - size))
    context = CONTEXT_PX * level
    template = window_at(board.template, left - context, top - context, size + 2 * context)
    part = window_at(board.part, left, top, size)
    template, part = _disturbed(template, part, board.real, rng)
    if coarse:
        inner = TILE_PX + 2 * CONTEXT_PX
        template = np.asarray(cv2.resize(template, (inner, inner), interpolation=cv2.INTER_AREA), np.uint8)
        part = np.asarray(cv2.resize(part, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA), np.uint8)
    boxes = _boxes_on_tile(board.boxes, left, top, level)
    reach = 8 if rng.random() < 0.5 else 6
    template = template_tile(template, part, CONTEXT_PX, CONTEXT_PX, reach)
    template, part, boxes = _turned(template, part, boxes, int(rng.integers(8)))
    span = float(np.percentile(part, 98) - np.percentile(part, 2))
    if not differs(template, part, max(144 * span / 255, 8.0), 4) and rng.random() < 0.9:
        return None
    return Sample(np.ascontiguousarray(template), np.ascontiguousarray(part), boxes)


def _origin(board: Board, size: int, rng: np.random.Generator) -> tuple[float, float]:
    height, width = board.part.shape
    if len(board.boxes) and rng.random() < 0.72:
        x1, y1, x2, y2, _ = board.boxes[rng.integers(len(board.boxes))]
        away = rng.uniform(0.1, 0.9, 2) * size
        return (x1 + x2) / 2 - away[0], (y1 + y2) / 2 - away[1]
    return rng.uniform(0, width - size), rng.uniform(0, height - size)


def _disturbed(
    template: ByteArray, part: ByteArray, real: bool, rng: np.random.Generator
) -> tuple[ByteArray, ByteArray]:
    """Innocent differences: the template shifted and bent, either one blurred and thresholded again, specks."""
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


def _boxes_on_tile(
    boxes: npt.NDArray[np.float32], left: int, top: int, level: int
) -> npt.NDArray[np.float32]:
    moved = boxes.copy()
    moved[:, [0, 2]] = (moved[:, [0, 2]] - left) / level
    moved[:, [1, 3]] = (moved[:, [1, 3]] - top) / level
    x, y = moved[:, [0, 2]].mean(1), moved[:, [1, 3]].mean(1)
    longest = np.maximum(moved[:, 2] - moved[:, 0], moved[:, 3] - moved[:, 1])
    inside = (x > 2) & (x < TILE_PX - 2) & (y > 2) & (y < TILE_PX - 2) & (longest >= SMALLEST_LABELLED_PX)
    moved = moved[inside]
    moved[:, :4] = np.clip(moved[:, :4], 0, TILE_PX)
    return moved


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

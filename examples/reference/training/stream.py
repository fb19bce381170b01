"""Endless training batches, drawn and augmented in the data loader's process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch.utils.data import IterableDataset

from orinspect.examples.reference.training.samples import (
    Crop,
    Sample,
    crops_from_board,
    deeppcb_boards,
    sample_from_crop,
    scene_board,
)
from orinspect.examples.reference.training.surfaces import (
    Surface,
    SurfaceTile,
    real_surfaces,
    tile_from_surface,
    training_scene,
)
from orinspect.examples.reference.training.targets import Answer, AnswerWriter, Cells, cells_from_boxes
from orinspect.examples.reference.training.tasks import Task

BATCH = 32
POOL, FIRST_CROPS, REUSE = 8000, 500, 10  # a crop is shown about ten times, moved and turned anew
SURFACES, FIRST_SURFACES, SURFACE_REUSE = 1200, 40, 40  # pictures kept, drawn at first, tiles of each
FIRST_SEED = 10_000_000  # from here on, far from the seeds of validation and of the demo


@dataclass(frozen=True)
class Batch:
    """Rows sorted by task and number of boxes, so that chunks of answers are of similar length.

    `pixels` [B, 3, 2, 128, 128] uint8; `tasks`, `boxes` [n, 5] and `answers`, not yet padded, one a row;
    `cells` with a first axis of B; `marks` [B, 128, 128] uint8 as marks.py says.
    """

    pixels: npt.NDArray[np.uint8]
    tasks: list[Task]
    boxes: list[npt.NDArray[np.float32]]
    answers: list[Answer]
    cells: Cells
    marks: npt.NDArray[np.uint8]

    def chunks(self, rows: int) -> Iterator[slice]:
        """Slices of at most `rows` rows of one task."""
        start = 0
        while start < len(self.tasks):
            stop = start + 1
            while stop < min(start + rows, len(self.tasks)) and self.tasks[stop] == self.tasks[start]:
                stop += 1
            yield slice(start, stop)
            start = stop


@dataclass(frozen=True)
class Mixture:
    """What a run learns from.

    `surface_rows` of the rows of a batch show a surface without template. `deeppcb`, `surfaces`: folders of
    real pictures (research use only), None for scenes alone; `real_boards`, `real_surfaces`: their shares of
    the boards and of the surface tiles.
    """

    surface_rows: int
    deeppcb: Path | None = None
    surfaces: Path | None = None
    real_boards: float = 0.65
    real_surfaces: float = 0.7


class BoardTiles:
    """Tiles of pairs, from a pool of crops that is slowly renewed."""

    def __init__(self, mixture: Mixture, first_seed: int, rng: np.random.Generator) -> None:
        self.rng, self.next_seed, self.share = rng, first_seed, mixture.real_boards
        self.real = deeppcb_boards(mixture.deeppcb, "training") if mixture.deeppcb else []
        self.pool: list[Crop] = []
        self.due = 0.0

    def draw(self, count: int) -> list[Sample]:
        """`count` tiles; new boards join the pool as often as they must."""
        self.due += FIRST_CROPS if not self.pool else count / REUSE
        while self.due > 0:
            if self.real and self.rng.random() < self.share:
                board = self.real[int(self.rng.integers(len(self.real)))]
            else:
                board = scene_board(self.next_seed)
                self.next_seed += 1
            crops = crops_from_board(board, self.rng)
            self.due -= len(crops)
            for crop in crops:
                if len(self.pool) < POOL:
                    self.pool.append(crop)
                else:
                    self.pool[int(self.rng.integers(POOL))] = crop
        chosen = self.rng.integers(len(self.pool), size=count)
        return [sample_from_crop(self.pool[int(index)], self.rng) for index in chosen]


class SurfaceTiles:
    """Tiles without a template, from a pool of scenes that is slowly renewed, and from real surfaces."""

    def __init__(
        self, mixture: Mixture, types: Sequence[str], first_seed: int, rng: np.random.Generator
    ) -> None:
        self.rng, self.types, self.next_seed, self.share = rng, types, first_seed, mixture.real_surfaces
        found = real_surfaces(mixture.surfaces, types, "train") if mixture.surfaces else {}
        self.real = list(found.values())  # each set as often as any other, whatever its size
        self.pool: list[Surface] = []
        self.due = 0.0

    def draw(self, count: int) -> list[SurfaceTile]:
        """`count` tiles; new scenes join the pool as often as they must."""
        return [self._tile() for _ in range(count)]

    def _tile(self) -> SurfaceTile:
        if self.real and self.rng.random() < self.share:
            pictures = self.real[int(self.rng.integers(len(self.real)))]
            return tile_from_surface(pictures[int(self.rng.integers(len(pictures)))], self.rng)
        self.due += FIRST_SURFACES if not self.pool else 1 / SURFACE_REUSE
        while self.due >= 1:
            scene = training_scene(self.next_seed, self.types)
            self.next_seed, self.due = self.next_seed + 1, self.due - 1
            if len(self.pool) < SURFACES:
                self.pool.append(scene)
            else:
                self.pool[int(self.rng.integers(SURFACES))] = scene
        return tile_from_surface(self.pool[int(self.rng.integers(len(self.pool)))], self.rng)


class TileStream(IterableDataset):
    """Endless batches of a mixture."""

    def __init__(self, seed: int, mixture: Mixture, types: Sequence[str], tokenizer_file: Path) -> None:
        self.seed, self.mixture, self.types = seed, mixture, tuple(types)
        self.tokenizer_file = tokenizer_file

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        writer = AnswerWriter(Tokenizer.from_file(str(self.tokenizer_file)), self.types)
        first_seed = FIRST_SEED + self.seed * 1_000_000
        boards = BoardTiles(self.mixture, first_seed, rng)
        surfaces = SurfaceTiles(self.mixture, self.types, first_seed, rng)
        rows = self.mixture.surface_rows
        while True:
            yield batch_from_tiles(boards.draw(BATCH - rows), surfaces.draw(rows), writer)


def batch_from_tiles(pairs: Sequence[Sample], surfaces: Sequence[SurfaceTile], writer: AnswerWriter) -> Batch:
    """Arrays of a batch: answers are padded later, chunk by chunk."""
    rows: list[tuple[Task, Sample | SurfaceTile]] = [("compare", each) for each in pairs]
    rows += [("surface", each) for each in surfaces]
    rows.sort(key=lambda row: (row[0], len(row[1].boxes)))
    tiles = [tile for _, tile in rows]
    cells = [cells_from_boxes(tile.boxes, tile.left_out) for tile in tiles]
    return Batch(
        pixels=np.stack([tile.pixels for tile in tiles]),
        tasks=[task for task, _ in rows],
        boxes=[tile.boxes for tile in tiles],
        answers=[writer.answer(tile.boxes) for tile in tiles],
        cells=Cells(
            presence=np.stack([c.presence for c in cells]),
            known=np.stack([c.known for c in cells]),
            type=np.stack([c.type for c in cells]),
            box=np.stack([c.box for c in cells]),
        ),
        marks=np.stack([tile.marks for tile in tiles]),
    )


def unchanged(batch: Batch) -> Batch:
    """Keeps the loader from turning arrays into tensors."""
    return batch

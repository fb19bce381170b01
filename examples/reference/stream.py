"""Endless training batches, drawn and augmented in the data loader's process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch.utils.data import IterableDataset

from orinspect.examples.reference.samples import (
    Crop,
    Sample,
    crops_from_board,
    deeppcb_boards,
    sample_from_crop,
    scene_board,
)
from orinspect.examples.reference.targets import Answer, AnswerWriter, Cells, cells_from_boxes

BATCH = 32
POOL, FIRST_CROPS, REUSE = 8000, 500, 6  # a crop is shown about six times, moved and turned anew


@dataclass(frozen=True)
class Batch:
    """Rows sorted by the number of boxes, so that chunks of answers are of similar length.

    `template`, `part` [B, 128, 128] uint8; `boxes` one [n, 5] a row; `answers` one a row, not yet padded;
    `cells` with a first axis of B.
    """

    template: npt.NDArray[np.uint8]
    part: npt.NDArray[np.uint8]
    boxes: list[npt.NDArray[np.float32]]
    answers: list[Answer]
    cells: Cells


class TileStream(IterableDataset):
    """Endless batches from a pool of crops that is slowly renewed, by real pairs at `real_share`."""

    def __init__(self, seed: int, real_share: float, deeppcb: Path | None, tokenizer_file: Path) -> None:
        self.seed, self.real_share = seed, real_share
        self.deeppcb, self.tokenizer_file = deeppcb, tokenizer_file

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        writer = AnswerWriter(Tokenizer.from_file(str(self.tokenizer_file)))
        real = deeppcb_boards(self.deeppcb, "training") if self.deeppcb else []
        next_seed = 10_000_000 + self.seed * 1_000_000  # far from the seeds of validation and of the demo
        pool: list[Crop] = []
        due = 0.0
        while True:
            due += FIRST_CROPS if not pool else BATCH / REUSE
            while due > 0:
                if real and rng.random() < self.real_share:
                    board = real[int(rng.integers(len(real)))]
                else:
                    board = scene_board(next_seed)
                    next_seed += 1
                crops = crops_from_board(board, rng)
                due -= len(crops)
                for crop in crops:
                    if len(pool) < POOL:
                        pool.append(crop)
                    else:
                        pool[int(rng.integers(POOL))] = crop
            samples = [sample_from_crop(pool[int(rng.integers(len(pool)))], rng) for _ in range(BATCH)]
            yield batch_from_samples(samples, writer)


def batch_from_samples(samples: list[Sample], writer: AnswerWriter) -> Batch:
    """Arrays of a batch: answers are padded later, chunk by chunk."""
    samples = sorted(samples, key=lambda sample: len(sample.boxes))
    cells = [cells_from_boxes(sample.boxes) for sample in samples]
    return Batch(
        template=np.stack([sample.template for sample in samples]),
        part=np.stack([sample.part for sample in samples]),
        boxes=[sample.boxes for sample in samples],
        answers=[writer.answer(sample.boxes) for sample in samples],
        cells=Cells(
            presence=np.stack([c.presence for c in cells]),
            known=np.stack([c.known for c in cells]),
            type=np.stack([c.type for c in cells]),
            box=np.stack([c.box for c in cells]),
        ),
    )


def unchanged(batch: Batch) -> Batch:
    """Keeps the loader from turning arrays into tensors."""
    return batch

"""The table that a training run prints: dense F and the words' right choices on fixed tiles."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orinspect.evaluation.warp import warp_template
from orinspect.examples.reference.training.losses import Reference, patches_from_batch
from orinspect.examples.reference.training.network import FastForward
from orinspect.examples.reference.training.samples import (
    crops_from_board,
    deeppcb_boards,
    sample_from_crop,
    scene_board,
)
from orinspect.examples.reference.training.stream import Batch, Mixture, batch_from_tiles
from orinspect.examples.reference.training.surfaces import grid_tiles, real_surfaces, scene_surface
from orinspect.examples.reference.training.targets import AnswerWriter
from orinspect.examples.reference.training.tasks import Task

Numbers = npt.NDArray[Any]

VALIDATION_BATCH = 64
OWNED_FROM_PX: dict[Task, int] = {"compare": 32, "surface": 16}


@torch.no_grad()
def dense_counts(reference: Reference, batch: Batch) -> Numbers:
    """(hits, reported, true) at presence 0.4, with type, IoU > 0.33, of boxes that the tile owns."""
    fast = FastForward(reference.model)
    tokens, deepstack, _ = fast.vision(patches_from_batch(batch))
    out = reference.dense(torch.cat([tokens, *deepstack], -1)).float().numpy()
    counts = np.zeros(3)
    for row, boxes, task in zip(out, batch.boxes, batch.tasks, strict=True):
        edge = OWNED_FROM_PX[task]
        found: list[tuple[Numbers, int]] = []
        for index in np.argsort(-row[:, 0]):
            if row[index, 0] < math.log(0.4 / 0.6):
                break
            cy, cx = divmod(int(index), 4)
            left, up, right, down = row[index, -4:]
            box = np.array([cx + 0.5 - left, cy + 0.5 - up, cx + 0.5 + right, cy + 0.5 + down]) * 32
            if all(overlap(box, other) < 0.3 for other, _ in found):
                found.append((box, int(row[index, 1:-4].argmax())))
        taken: set[int] = set()
        for box, kind in found:
            fits = [
                i
                for i, b in enumerate(boxes)
                if i not in taken and overlap(box, b[:4]) > 0.33 and b[4] == kind
            ]
            if fits:
                taken.add(fits[0])
                counts += (1, 1, 0) if central(boxes[fits[0]], edge) else (0, 0, 0)
            else:
                counts += (0, 1, 0) if central(box, edge) else (0, 0, 0)
        counts[2] += sum(central(b, edge) for b in boxes)
    return counts


def central(box: Numbers, edge_px: int) -> bool:
    """Whether a box [x1, y1, x2, y2, ..] in tile pixels is centred in what the tile owns."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return bool(edge_px <= x < 128 - edge_px and edge_px <= y < 128 - edge_px)


def overlap(a: Numbers, b: Numbers) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    return float(inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner + 1e-6))


def validation_sets(writer: AnswerWriter, mixture: Mixture) -> dict[str, list[Batch]]:
    """Every tile of unseen scenes of both kinds; with real pictures also tiles of those held out.

    Only figures come from them: no threshold and no choice of weights.
    """
    boards = {"scenes": [scene_board(seed) for seed in range(900_000, 900_040)]}
    if mixture.deeppcb:
        boards["boards"] = deeppcb_boards(mixture.deeppcb, "validation")[::5]
        rng = np.random.default_rng(5)
        boards["warped"] = [replace(b, template=warp_template(b.template, rng)) for b in boards["boards"]]
    surfaces = {"metal": [scene_surface(seed, writer.types) for seed in range(900_000, 900_030)]}
    if mixture.surfaces:
        found = real_surfaces(mixture.surfaces, writer.types, "validation")
        surfaces |= {name: pictures[::3] for name, pictures in found.items()}
    sets: dict[str, list[Batch]] = {}
    for name, pairs in boards.items():
        samples = [sample_from_crop(crop, None) for board in pairs for crop in crops_from_board(board, None)]
        starts = range(0, len(samples), VALIDATION_BATCH)
        sets[name] = [batch_from_tiles(samples[i : i + VALIDATION_BATCH], (), writer) for i in starts]
        print(f"  {name}: {len(pairs)} boards, {len(samples)} tiles", flush=True)
    for name, pictures in surfaces.items():
        tiles = [tile for picture in pictures for tile in grid_tiles(picture)]
        starts = range(0, len(tiles), VALIDATION_BATCH)
        sets[name] = [batch_from_tiles((), tiles[i : i + VALIDATION_BATCH], writer) for i in starts]
        print(f"  {name}: {len(pictures)} pictures, {len(tiles)} tiles", flush=True)
    return sets


@torch.no_grad()
def validation_row(reference: Reference, batches: list[Batch]) -> dict[str, float]:
    """Dense F with class, and the words' shares of right choices under teacher forcing."""
    reference.eval()
    counts = np.zeros(3)
    sums: dict[str, float] = {}
    for batch in batches:
        counts += dense_counts(reference, batch)
        for name, value in reference.losses(batch).items():
            sums[name] = sums.get(name, 0.0) + float(value) / len(batches)
    reference.train()
    hits, reported, true = counts
    row = {"dense F": 2 * hits / max(reported + true, 1), "recall": hits / max(true, 1)}
    return {
        **row,
        **{name: sums[name] for name in ("words", "kind right", "type right", "list right", "tens right")},
    }


def table(
    reference: Reference,
    average: dict[str, Tensor],
    held_out: dict[str, list[Batch]],
    state: dict[str, Any],
    out: Path,
) -> None:
    """Validates the averaged weights, prints the rows and appends them to `validation.jsonl`."""
    own = {name: value.clone() for name, value in reference.state_dict().items()}
    reference.load_state_dict(average)
    for name, batches in held_out.items():
        row = validation_row(reference, batches)
        print(f"  {name:8s} " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()), flush=True)
        with (out / "validation.jsonl").open("a") as lines:
            lines.write(json.dumps({"set": name, **state, **row}) + "\n")
    reference.load_state_dict(own)

"""Checkpoints and prompts that the oracle compares live and that the golden tensors repeat without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orinspect.export.graph.graphs import GraphFiles, graphs_from_checkpoint
from orinspect.runtime.infer.shape import ModelShape
from orinspect.tests.tiny_checkpoint import REFERENCE_SIZES, TinySizes, write_tiny_checkpoint

Floats = npt.NDArray[np.float32]

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_TEXTS = (6, 4, 8)
"""Lengths of the text runs of the golden prompt, a picture between each two."""
GOLDEN_COLUMN_STEP = 8
"""Every eighth column of the logits is kept, so that the files stay small."""


@dataclass(frozen=True)
class Case:
    """A checkpoint's sizes and form, and the grid of its pictures in patches."""

    sizes: TinySizes
    grid_hw: tuple[int, int] = (8, 8)
    form: dict[str, Any] = field(default_factory=dict)

    def written(self, folder: Path) -> tuple[Path, GraphFiles]:
        """The checkpoint folder and its exported graphs, below `folder`."""
        checkpoint = write_tiny_checkpoint(folder / "checkpoint", self.sizes, seed=7, **self.form)
        return checkpoint, graphs_from_checkpoint(checkpoint, folder / "graphs", grid_hw=self.grid_hw)


CASES = {
    "reference": Case(REFERENCE_SIZES, form={"shards": 2}),
    "grouped": Case(TinySizes(), (4, 8)),
    # One key head a query head, untied head, attention bias, the older configuration, fp16.
    "apart": Case(
        TinySizes(kv_heads=4, is_head_tied=False, has_attention_bias=True, rope_theta=5e6, position_side=7),
        (8, 4),
        {"config_dialect": "4.57", "number_type": "float16"},
    ),
    # Eight query heads on one key head, the released models' head and section, taps out of order.
    "shared": Case(
        TinySizes(
            heads=8,
            kv_heads=1,
            head_dim=128,
            mrope_section=(24, 20, 20),
            rope_theta=1e6,
            vision_depth=4,
            deepstack=(2, 0, 3),
            position_side=3,
        ),
        (6, 4),
        {"number_type": "float32", "shards": 3},
    ),
    # The 8B's encoder in small: 27 blocks, heads of 72, an untied head; taps beyond the first layers.
    "deep": Case(
        TinySizes(
            heads=4,
            kv_heads=1,
            layers=4,
            is_head_tied=False,
            vision_hidden=144,
            vision_depth=27,
            vision_heads=2,
            vision_intermediate=160,
            position_side=48,
            deepstack=(8, 16, 24),
        ),
        (4, 10),
        {"shards": 2},
    ),
    # As many taps as layers, and one tap only.
    "tapped": Case(
        TinySizes(layers=4, heads=2, kv_heads=2, vision_depth=6, deepstack=(0, 5, 2, 3)), (2, 12)
    ),
    "one-tap": Case(TinySizes(layers=2, deepstack=(2,)), (10, 2), {"number_type": "float32"}),
}


def drawn_pictures(shape: ModelShape, count: int, seed: int) -> list[Floats]:
    """`count` pictures as patches [N, F] in [-1, 1]; the two frames of a patch differ."""
    draw = np.random.default_rng(seed)
    return list(draw.uniform(-1, 1, (count, shape.patches, shape.patch_features)).astype(np.float32))


def drawn_ids(shape: ModelShape, texts: Sequence[int], seed: int) -> list[int]:
    """Runs of random text of the given lengths with a picture between each two."""
    draw = np.random.default_rng(seed)
    ids: list[int] = []
    for index, length in enumerate(texts):
        if index:
            picture = [shape.image_token_id] * shape.tokens
            ids += [shape.vision_start_token_id, *picture, shape.vision_end_token_id]
        ids += draw.integers(0, 1000, length).tolist()
    return ids

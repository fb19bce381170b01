"""Random inputs of a decoder graph, with a mask and positions as the runtime makes them."""

from __future__ import annotations

import numpy as np

from orinspect.runtime.infer.engines.engine import FloatArray
from orinspect.runtime.infer.sequence import mask_for, mrope_cos_sin, positions_for_segments
from orinspect.runtime.infer.shape import ModelShape


def feeds_of(
    shape: ModelShape, rows: int, columns: int, slots: int, lengths: list[int]
) -> dict[str, FloatArray]:
    rng = np.random.default_rng(3)
    positions = np.tile(positions_for_segments([columns], max(lengths))[0], (rows, 1, 1))
    cos, sin = mrope_cos_sin(positions, shape)

    def normal(*size: int) -> FloatArray:
        return rng.standard_normal(size).astype(np.float32)

    return {
        "embeds": normal(rows, columns, shape.hidden),
        "deepstack": normal(rows, len(shape.deepstack), columns, shape.hidden),
        "cos": cos,
        "sin": sin,
        "past_kv": normal(*shape.past_kv_shape(rows, slots)),
        "mask": mask_for(lengths, [columns] * rows, slots, columns),
    }

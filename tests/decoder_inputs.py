"""One decoder call: inputs drawn at random, ragged rows behind a past that only some of them see whole."""

from __future__ import annotations

import numpy as np

from orinspect.calibration.sessions import Array
from orinspect.runtime.infer.sequence import mask_for, mrope_cos_sin
from orinspect.runtime.infer.shape import ModelShape

ROWS, COLUMNS, PAST = 3, 7, 5


def decoder_inputs(shape: ModelShape, seed: int = 3) -> dict[str, Array]:
    """A ragged batch behind a past: the second row has fewer tokens and fewer past slots."""
    draw = np.random.default_rng(seed)
    positions = np.broadcast_to(PAST + np.arange(COLUMNS), (ROWS, 3, COLUMNS))
    cos, sin = mrope_cos_sin(positions, shape)
    return {
        "embeds": draw.normal(0, 1, (ROWS, COLUMNS, shape.hidden)).astype(np.float32),
        "deepstack": draw.normal(0, 1, (ROWS, len(shape.deepstack), COLUMNS, shape.hidden)).astype(
            np.float32
        ),
        "cos": cos,
        "sin": sin,
        "past_kv": draw.normal(0, 1, shape.past_kv_shape(ROWS, PAST)).astype(np.float32),
        "mask": mask_for([PAST, PAST - 2, PAST], [COLUMNS, COLUMNS - 3, COLUMNS], PAST, COLUMNS),
    }

"""Where in a patch the defect lies: it helps the vision encoder to learn, then it is thrown away.

Boxes say little about thin and ragged defects. Where the true mask is known, every patch is asked which of
its 4 x 4 blocks show a defect, and of which type. Nothing on the device knows this head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TILE_PX, PATCH_PX, BLOCK_PX = 128, 16, 4
BLOCKS = (PATCH_PX // BLOCK_PX) ** 2
SOUND, UNKNOWN = 0, 255
UNKNOWN_MARKS: npt.NDArray[np.uint8] = np.full((TILE_PX, TILE_PX), UNKNOWN, np.uint8)
"""[128, 128]: marks of a tile of which only boxes are known. Elsewhere 0 is sound and 1 + type a defect."""


@dataclass(frozen=True)
class PatchMarks:
    """Of patches row by row: `covered` [B, 64, 16] 0/1, `known` [B, 64] 0/1, `type` [B, 64], -1: sound."""

    covered: npt.NDArray[np.float32]
    known: npt.NDArray[np.float32]
    type: npt.NDArray[np.int64]


def patch_marks(marks: npt.NDArray[np.uint8]) -> PatchMarks:
    """From marks [B, 128, 128]; a block with any pixel of a defect is covered."""
    rows, side = len(marks), TILE_PX // PATCH_PX
    known = marks[:, 0, 0] != UNKNOWN
    clean = np.where(known[:, None, None], marks, SOUND)
    blocks = clean.reshape(rows, side, 4, BLOCK_PX, side, 4, BLOCK_PX).max(axis=(3, 6))  # [B, 8, 4, 8, 4]
    blocks = blocks.transpose(0, 1, 3, 2, 4).reshape(rows, side * side, BLOCKS)
    return PatchMarks(
        covered=(blocks > SOUND).astype(np.float32),
        known=np.repeat(known[:, None], side * side, 1).astype(np.float32),
        type=blocks.max(-1).astype(np.int64) - 1,
    )

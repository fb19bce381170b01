"""Interleaved M-RoPE on the host: cos and sin of (time, row, column) positions.

The decoder graph takes cos and sin as inputs, so one graph serves text, images and any mixture of the two.
Follows transformers' Qwen3VLTextRotaryEmbedding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .shape import ModelShape


def mrope_cos_sin(
    positions: npt.NDArray[np.int64], shape: ModelShape
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """cos and sin, each float32 [B, K, head_dim], of integer positions [B, 3, K].

    Frequency i belongs to the row axis when i % 3 == 1 and i < 3 * section[1], to the column axis when
    i % 3 == 2 and i < 3 * section[2], and to time otherwise. All arithmetic is float32, as in transformers.
    """
    if positions.ndim != 3 or positions.shape[1] != 3:
        raise ValueError(f"positions must be [B, 3, K]; got {positions.shape}")
    half = shape.head_dim // 2
    exponents = np.arange(0, shape.head_dim, 2, dtype=np.float32) / np.float32(shape.head_dim)
    frequencies = np.float32(1.0) / np.power(np.float32(shape.rope_theta), exponents)  # [half]
    axis = np.zeros(half, np.int64)
    for which in (1, 2):
        axis[which : 3 * shape.mrope_section[which] : 3] = which
    places = np.transpose(positions, (0, 2, 1)).astype(np.float32)[:, :, axis]  # [B, K, half]
    angles = places * frequencies
    angles = np.concatenate([angles, angles], axis=-1)  # [B, K, head_dim]
    return np.cos(angles), np.sin(angles)

"""Token sequences on the host: positions and their rotation, the mask of a ragged batch, the kept past.

The decoder graph takes cos and sin of the positions as inputs, so one graph serves text, images and any
mixture of the two.

A row's past lies in slots 0..p-1 of its buffer. New tokens are padded on the LEFT, so that the last column is
always a row's last token. Slots behind p are stale: the decoder replaces their scores, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .shape import ModelShape

MASKED = np.float32(-1e4)
"""Mask value of a key that a query may not see; the decoder graph takes all below -5e3 for masked."""


Segment: TypeAlias = int | tuple[int, int]
"""A run of text of n tokens, or an image of (rows, columns) tokens, counted after merging."""


def positions_for_segments(segments: Sequence[Segment], start: int = 0) -> tuple[npt.NDArray[np.int64], int]:
    """Positions [3, K] (time, row, column) of consecutive segments, and the position of the token after them.

    Text advances all three by one a token. An image stands at one moment, its rows and columns count from
    there, and what follows starts behind its longer side (Qwen3VLModel.get_rope_index of transformers).
    """
    columns: list[npt.NDArray[np.int64]] = []
    current = start
    for segment in segments:
        if isinstance(segment, tuple):
            rows, width = segment
            grid = np.indices((rows, width), dtype=np.int64).reshape(2, -1)
            moment = np.zeros((1, rows * width), np.int64)
            columns.append(np.concatenate([moment, grid]) + current)
            current += max(rows, width)
        else:
            columns.append(np.tile(np.arange(current, current + segment, dtype=np.int64), (3, 1)))
            current += segment
    if not columns:
        return np.zeros((3, 0), np.int64), current
    return np.concatenate(columns, axis=1), current


@dataclass(frozen=True)
class TokenRun:
    """Tokens of one row that follow each other: embeds [k, H], deepstack [D, k, H] (None: text), positions
    [3, k].
    """

    embeds: npt.NDArray[np.float32]
    deepstack: npt.NDArray[np.float32] | None
    positions: npt.NDArray[np.int64]


def run_from_pictures(
    image_tokens: npt.NDArray[np.float32],
    deepstack: npt.NDArray[np.float32],
    texts: Sequence[npt.NDArray[np.float32]],
    token_grid_hw: tuple[int, int],
    start: int,
) -> TokenRun:
    """Pictures in their order, each with the text that follows it; the first one stands at position `start`.

    image_tokens [pictures * T, H], deepstack [D, pictures * T, H], texts: embedded text [n, H] of each
    picture. ValueError when the pictures are not as many as the texts.
    """
    tokens = token_grid_hw[0] * token_grid_hw[1]
    if len(image_tokens) != tokens * len(texts):
        raise ValueError(f"{len(image_tokens)} image tokens are not {len(texts)} pictures of {tokens}")
    pieces: list[npt.NDArray[np.float32]] = []
    segments: list[Segment] = []
    features: list[npt.NDArray[np.float32]] = []
    for index, text in enumerate(texts):
        picture = slice(index * tokens, (index + 1) * tokens)
        pieces += [image_tokens[picture], text]
        features += [deepstack[:, picture], np.zeros((len(deepstack), *text.shape), np.float32)]
        segments += [token_grid_hw, len(text)]
    positions, _ = positions_for_segments(segments, start)
    return TokenRun(np.concatenate(pieces), np.concatenate(features, axis=1), positions)


def mrope_cos_sin(
    positions: npt.NDArray[np.int64], shape: ModelShape
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """cos and sin, each float32 [B, K, head_dim], of integer positions [B, 3, K] (time, row, column).

    Interleaved M-RoPE as transformers' Qwen3VLTextRotaryEmbedding has it: frequency i belongs to the row axis
    when i % 3 == 1 and i < 3 * section[1], to the column axis when i % 3 == 2 and i < 3 * section[2], and to
    time otherwise. All arithmetic is float32, as there.
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


def mask_for(
    past_lengths: npt.ArrayLike, k_lengths: npt.ArrayLike, past_slots: int, columns: int
) -> npt.NDArray[np.float32]:
    """Additive mask [B, K, P+K]: 0 where a query may look, -1e4 elsewhere.

    past_lengths [B]: filled past slots of each row, 0..P. k_lengths [B]: real new tokens of each row, 0..K,
    standing in the last columns. A padded query sees itself only, never nothing (a fully masked row is NaN
    in fp16).
    """
    past = np.asarray(past_lengths, np.int64).reshape(-1, 1, 1)
    real = np.asarray(k_lengths, np.int64).reshape(-1, 1, 1)
    if past.shape != real.shape:
        raise ValueError(f"{past.size} past lengths do not match {real.size} new lengths")
    if past.size and (past.min() < 0 or past.max() > past_slots):
        raise ValueError(f"past lengths {past.ravel().tolist()} must lie within 0..{past_slots} slots")
    if real.size and (real.min() < 0 or real.max() > columns):
        raise ValueError(f"new lengths {real.ravel().tolist()} must lie within 0..{columns} columns")
    query = np.arange(columns).reshape(1, -1, 1)
    first_real = columns - real
    is_real = query >= first_real
    sees_past = is_real & (np.arange(past_slots).reshape(1, 1, -1) < past)
    key = np.arange(columns).reshape(1, 1, -1)
    sees_new = (is_real & (key >= first_real) & (key <= query)) | (key == query)
    return np.where(np.concatenate([sees_past, sees_new], axis=2), np.float32(0), MASKED)


def store_new_kv(
    past_kv: npt.NDArray[np.float32],
    new_kv: npt.NDArray[np.float32],
    past_lengths: npt.ArrayLike,
    k_lengths: npt.ArrayLike,
) -> None:
    """Copy each row's real new keys and values behind its past, in place; the caller then adds k to p.

    past_kv [B, L, 2, Hkv, P, hd], new_kv [B, L, 2, Hkv, K, hd]. A row that does not fit raises ValueError.
    """
    slots, columns = past_kv.shape[4], new_kv.shape[4]
    lengths = [np.asarray(counts, np.int64).tolist() for counts in (past_lengths, k_lengths)]
    for row, (past, real) in enumerate(zip(*lengths, strict=True)):
        if past + real > slots:
            raise ValueError(
                f"row {row}: {past} + {real} tokens do not fit {slots} slots; use a larger bucket"
            )
        past_kv[row, :, :, :, past : past + real] = new_kv[row, :, :, :, columns - real :]

"""transformers' Qwen3-VL on a checkpoint folder, in float32 with eager attention: the side that is right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import Qwen3VLForConditionalGeneration

Floats = npt.NDArray[np.float32]


class TransformersModel:
    """Token ids and hand-made patches in, numpy out."""

    def __init__(self, folder: Path, grid_hw: tuple[int, int]) -> None:
        self.model: Any = Qwen3VLForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self._grid = [1, *grid_hw]

    def see(self, patches: Floats) -> tuple[Floats, Floats]:
        """patches [B, N, F] -> image tokens [B, T, H], deepstack [B, D, T, H]."""
        grids = torch.tensor([self._grid] * len(patches))
        flat = torch.from_numpy(patches.reshape(-1, patches.shape[-1]))
        with torch.no_grad():
            seen = self.model.get_image_features(flat, grids)
        features = [torch.stack(list(feature)) for feature in seen.deepstack_features]
        return torch.stack(list(seen.pooler_output)).numpy(), torch.stack(features, dim=1).numpy()

    def inputs(self, ids: Sequence[int], pictures: Sequence[Floats]) -> dict[str, Any]:
        """Keyword arguments for the model: patches go in directly, as [pictures * N, F]."""
        tokens = torch.tensor([list(ids)])
        kind = (tokens == self.model.config.image_token_id).int()
        arguments: dict[str, Any] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if pictures:
            arguments |= {
                "mm_token_type_ids": kind,
                "pixel_values": torch.from_numpy(np.concatenate(pictures)),
                "image_grid_thw": torch.tensor([self._grid] * len(pictures)),
            }
        return arguments

    def all_logits(self, ids: Sequence[int], pictures: Sequence[Floats] = ()) -> Floats:
        """Logits [K, V] of one prompt."""
        self.model.model.rope_deltas = None
        with torch.no_grad():
            return np.asarray(self.model(**self.inputs(ids, pictures)).logits[0].numpy())

    def greedy(self, ids: Sequence[int], pictures: Sequence[Floats], steps: int) -> list[int]:
        """`steps` tokens of transformers' own generate, cache and positions included."""
        self.model.model.rope_deltas = None
        with torch.no_grad():
            result = self.model.generate(
                **self.inputs(ids, pictures),
                max_new_tokens=steps,
                min_new_tokens=steps,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        return [int(token) for token in result[0, len(ids) :]]

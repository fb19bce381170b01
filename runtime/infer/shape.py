"""The sizes of one exported model, as the bundle's manifest carries them to the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BundleError


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a dense Qwen3-VL and of the picture grid that its vision graph was built for.

    `grid_hw` counts patches before merging; a picture becomes `tokens` image tokens. `deepstack` lists the
    vision blocks whose features are tapped; feature k joins the output of decoder layer k.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    rms_norm_eps: float
    rope_theta: float
    mrope_section: tuple[int, int, int]
    is_head_tied: bool
    has_attention_bias: bool
    vision_hidden: int
    vision_depth: int
    vision_heads: int
    vision_intermediate: int
    vision_rope_theta: float
    channels: int
    patch_px: int
    temporal_patch: int
    merge: int
    position_side: int
    deepstack: tuple[int, ...]
    grid_hw: tuple[int, int]
    image_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int

    @property
    def tile_px(self) -> int:
        """Side of the square picture in pixels; a non-square grid has none and raises ValueError."""
        rows, columns = self.grid_hw
        if rows != columns:
            raise ValueError(f"a grid of {rows} x {columns} patches is not square; use picture_hw_px")
        return rows * self.patch_px

    @property
    def picture_hw_px(self) -> tuple[int, int]:
        """Height and width in pixels of the picture that the vision graph takes."""
        return self.grid_hw[0] * self.patch_px, self.grid_hw[1] * self.patch_px

    @property
    def token_px(self) -> int:
        """Pixels that one image token covers along each axis."""
        return self.patch_px * self.merge

    @property
    def token_grid_hw(self) -> tuple[int, int]:
        """Rows and columns of image tokens, after merging."""
        return self.grid_hw[0] // self.merge, self.grid_hw[1] // self.merge

    @property
    def patches(self) -> int:
        """Patches of one picture, N."""
        return self.grid_hw[0] * self.grid_hw[1]

    @property
    def tokens(self) -> int:
        """Image tokens of one picture, T."""
        return self.patches // self.merge**2

    @property
    def patch_features(self) -> int:
        """Numbers in one patch, channels x frames x height x width."""
        return self.channels * self.temporal_patch * self.patch_px**2

    @property
    def vision_scores_bytes(self) -> int:
        """Bytes of one picture's unfused float32 attention scores in a vision block, heads x N x N."""
        return 4 * self.vision_heads * self.patches**2

    def decoder_scores_bytes(self, tokens: int, past: int) -> int:
        """Bytes of one row's unfused float32 attention scores in a decoder layer."""
        return 4 * self.heads * tokens * (past + tokens)

    def past_kv_shape(self, batch: int, slots: int) -> tuple[int, int, int, int, int, int]:
        """Shape of a key/value buffer [batch, layers, 2, kv_heads, slots, head_dim]."""
        return batch, self.layers, 2, self.kv_heads, slots, self.head_dim

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; tuples become lists."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelShape:
        """The shape that `to_json` wrote; a missing or unknown key is a BundleError that names it."""
        known = {field.name for field in dataclasses.fields(cls)}
        missing, unknown = sorted(known - set(document)), sorted(set(document) - known)
        if missing or unknown:
            raise BundleError(
                f"the bundle's model section has missing keys {missing} and unknown keys {unknown}; "
                "export the checkpoint again with this version of orinspect"
            )
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in document.items()
        }
        return cls(**values)

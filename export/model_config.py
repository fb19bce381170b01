"""config.json of a Qwen3-VL checkpoint -> ModelShape, refusing what the graphs could not reproduce.

Two dialects are read: transformers 4.57 (`rope_theta` beside `rope_scaling`) and 5.x (`rope_parameters`).
A checkpoint whose M-RoPE section is not found is refused: with plain rope it would run and answer nonsense.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..runtime.errors import CheckpointError
from ..runtime.infer.shape import ModelShape
from .weights import json_from_file

# Defaults that transformers 4.57 and 5.x share, for keys that a saved configuration may leave out.
_TEXT_DEFAULTS: dict[str, Any] = {
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
}
_VISION_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "hidden_act": "gelu_pytorch_tanh",
}
_VISION_ROPE_THETA = 10000.0


def shape_from_folder(
    folder: Path, *, tile_px: int = 128, grid_hw: tuple[int, int] | None = None
) -> ModelShape:
    """Sizes of the checkpoint in `folder`, for square tiles of `tile_px` or pictures of `grid_hw` patches.

    CheckpointError: another architecture, mixture of experts, quantised weights, a rope that is not
    interleaved M-RoPE, sizes that do not fit each other, or a grid that cannot be merged.
    """
    document = json_from_file(folder / "config.json")
    _check_architecture(document)
    text = _TEXT_DEFAULTS | _section(document, "text_config")
    vision = _VISION_DEFAULTS | _section(document, "vision_config")
    theta, section = _text_rope(text)
    shape = ModelShape(
        hidden=_size(text, "text_config", "hidden_size"),
        layers=_size(text, "text_config", "num_hidden_layers"),
        heads=_size(text, "text_config", "num_attention_heads"),
        kv_heads=_size(text, "text_config", "num_key_value_heads"),
        head_dim=_size(text, "text_config", "head_dim"),
        intermediate=_size(text, "text_config", "intermediate_size"),
        vocab=_size(text, "text_config", "vocab_size"),
        rms_norm_eps=float(text["rms_norm_eps"]),
        rope_theta=theta,
        mrope_section=section,
        is_head_tied=bool(document.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        has_attention_bias=bool(text["attention_bias"]),
        vision_hidden=_size(vision, "vision_config", "hidden_size"),
        vision_depth=_size(vision, "vision_config", "depth"),
        vision_heads=_size(vision, "vision_config", "num_heads"),
        vision_intermediate=_size(vision, "vision_config", "intermediate_size"),
        vision_rope_theta=float((vision.get("rope_parameters") or {}).get("rope_theta", _VISION_ROPE_THETA)),
        channels=_size(vision, "vision_config", "in_channels"),
        patch_px=_size(vision, "vision_config", "patch_size"),
        temporal_patch=_size(vision, "vision_config", "temporal_patch_size"),
        merge=_size(vision, "vision_config", "spatial_merge_size"),
        position_side=round(_size(vision, "vision_config", "num_position_embeddings") ** 0.5),
        deepstack=tuple(int(index) for index in vision.get("deepstack_visual_indexes") or ()),
        grid_hw=grid_hw or _square_grid(vision, tile_px),
        image_token_id=_size(document, "config.json", "image_token_id", least=0),
        vision_start_token_id=_size(document, "config.json", "vision_start_token_id", least=0),
        vision_end_token_id=_size(document, "config.json", "vision_end_token_id", least=0),
    )
    _check_activations(text, vision)
    _check_sizes(shape, vision)
    return shape


def _check_architecture(document: Mapping[str, Any]) -> None:
    kind = document.get("model_type")
    if kind == "qwen3_vl_moe" or "num_experts" in (document.get("text_config") or {}):
        raise CheckpointError(
            f"config.json: model_type {kind!r} is a mixture of experts; only the dense qwen3_vl is supported"
        )
    if kind != "qwen3_vl":
        raise CheckpointError(
            f"config.json: model_type {kind!r} is not supported; only the dense qwen3_vl is"
        )
    if document.get("quantization_config"):
        raise CheckpointError(
            "config.json has a quantization_config; export from the float checkpoint instead"
        )


def _section(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = document.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(
            f"config.json has no {name} object; a qwen3_vl configuration has text_config and vision_config"
        )
    return section


def _size(section: Mapping[str, Any], where: str, key: str, *, least: int = 1) -> int:
    value = section.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CheckpointError(
            f"config.json: {where}.{key} must be a whole number, {least} or more; found {value!r}"
        )
    return value


def _square_grid(vision: Mapping[str, Any], tile_px: int) -> tuple[int, int]:
    patch_px = _size(vision, "vision_config", "patch_size")
    token_px = patch_px * _size(vision, "vision_config", "spatial_merge_size")
    if tile_px <= 0 or tile_px % token_px:
        raise CheckpointError(f"a tile of {tile_px} px does not divide into tokens of {token_px} px")
    return tile_px // patch_px, tile_px // patch_px


def _text_rope(text: Mapping[str, Any]) -> tuple[float, tuple[int, int, int]]:
    """Theta and M-RoPE section from `rope_parameters` (5.x) or `rope_scaling` + `rope_theta` (4.57)."""
    # The order in which transformers looks when both are there.
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    theta = rope.get("rope_theta", text.get("rope_theta"))
    section = rope.get("mrope_section")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(section, list) or len(section) != 3:
        raise CheckpointError(
            "config.json: text_config has no mrope_section in rope_parameters or rope_scaling; "
            f"found {section!r}, and without it image positions would be lost"
        )
    if not isinstance(theta, (int, float)):
        raise CheckpointError(
            "config.json: text_config has no rope_theta, whose default differs between releases; "
            f"found {theta!r}"
        )
    # transformers 4.57 knew the type as "mrope" or "default"; anything else rescales the frequencies.
    if kind not in ("default", "mrope"):
        raise CheckpointError(
            f"config.json: rope type {kind!r} is not supported; only default with M-RoPE is"
        )
    if rope.get("mrope_interleaved", True) is not True:
        raise CheckpointError(
            "config.json: mrope_interleaved is false; Qwen3-VL uses the interleaved form only"
        )
    return float(theta), (int(section[0]), int(section[1]), int(section[2]))


def _check_activations(text: Mapping[str, Any], vision: Mapping[str, Any]) -> None:
    for name, section, wanted in (
        ("text_config", text, "silu"),
        ("vision_config", vision, "gelu_pytorch_tanh"),
    ):
        if section["hidden_act"] != wanted:
            raise CheckpointError(
                f"config.json: {name}.hidden_act {section['hidden_act']!r} is not supported; only {wanted} is"
            )


def _check_sizes(shape: ModelShape, vision: Mapping[str, Any]) -> None:
    """Refuse sizes that contradict each other, each with the two numbers in the message."""
    rows, columns = shape.grid_hw
    if rows % shape.merge or columns % shape.merge or min(rows, columns) < shape.merge:
        raise CheckpointError(
            f"a grid of {rows} x {columns} patches cannot be merged {shape.merge} x {shape.merge}"
        )
    if shape.heads % shape.kv_heads:
        raise CheckpointError(
            f"config.json: {shape.heads} heads cannot share {shape.kv_heads} key/value heads"
        )
    if sum(shape.mrope_section) != shape.head_dim // 2:
        raise CheckpointError(
            f"config.json: mrope_section {list(shape.mrope_section)} must add up to half of head_dim "
            f"{shape.head_dim}"
        )
    if shape.vision_hidden % (4 * shape.vision_heads):
        raise CheckpointError(
            f"config.json: vision hidden_size {shape.vision_hidden} must be a multiple of 4 x "
            f"{shape.vision_heads} heads"
        )
    if vision.get("out_hidden_size") != shape.hidden:
        raise CheckpointError(
            f"config.json: vision out_hidden_size {vision.get('out_hidden_size')} differs from "
            f"text hidden_size {shape.hidden}"
        )
    if shape.position_side**2 != vision["num_position_embeddings"]:
        raise CheckpointError(
            f"config.json: num_position_embeddings {vision['num_position_embeddings']} is not a square number"
        )
    taps = shape.deepstack
    if (
        not taps
        or len(taps) > shape.layers
        or len(set(taps)) != len(taps)
        or not all(0 <= tap < shape.vision_depth for tap in taps)
    ):
        raise CheckpointError(
            f"config.json: deepstack_visual_indexes {list(taps)} must name 1..{shape.layers} different "
            f"blocks of 0..{shape.vision_depth - 1}"
        )

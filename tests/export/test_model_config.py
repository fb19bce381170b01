"""config.json in both dialects of transformers, and what is refused with the value that was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orinspect.export.graphs import shape_from_checkpoint
from orinspect.runtime.errors import CheckpointError
from orinspect.tests.tiny_checkpoint import TinySizes, write_tiny_checkpoint

Document = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path)


def changed(folder: Path, change: Callable[[Document], object]) -> None:
    path = folder / "config.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("dialect", ["4.57", "5"])
def test_multiaxis_rope_is_found_in_both_dialects(tmp_path: Path, dialect: str) -> None:
    write_tiny_checkpoint(tmp_path, TinySizes(rope_theta=5e6), config_dialect=dialect)
    shape = shape_from_checkpoint(tmp_path)
    assert shape.rope_theta == 5e6
    assert shape.mrope_section == (6, 5, 5)


def test_sizes_follow_the_tile(folder: Path) -> None:
    shape = shape_from_checkpoint(folder, tile_px=96)
    assert (shape.grid_hw, shape.patches, shape.tokens, shape.tile_px) == ((6, 6), 36, 9, 96)
    assert (shape.patch_features, shape.token_px) == (1536, 32)
    wide = shape_from_checkpoint(folder, grid_hw=(4, 8))
    assert (wide.token_grid_hw, wide.picture_hw_px) == ((2, 4), (64, 128))


def rope(document: Document) -> Document:
    parameters: Document = document["text_config"]["rope_parameters"]
    return parameters


REFUSALS: dict[str, tuple[Callable[[Document], object], str]] = {
    "another model": (lambda d: d.update(model_type="qwen2_5_vl"), "'qwen2_5_vl' is not supported"),
    "no model type": (lambda d: d.pop("model_type"), "model_type None is not supported"),
    "experts": (lambda d: d.update(model_type="qwen3_vl_moe"), "'qwen3_vl_moe' is a mixture of experts"),
    "quantised": (lambda d: d.update(quantization_config={"bits": 8}), "quantization_config"),
    "no text": (lambda d: d.pop("text_config"), "no text_config object"),
    "no section": (lambda d: rope(d).pop("mrope_section"), "no mrope_section .* found None"),
    "no rope": (lambda d: d["text_config"].pop("rope_parameters"), "no mrope_section"),
    "no theta": (lambda d: rope(d).pop("rope_theta"), "no rope_theta"),
    "scaled rope": (lambda d: rope(d).update(rope_type="yarn"), "rope type 'yarn'"),
    "in blocks": (lambda d: rope(d).update(mrope_interleaved=False), "mrope_interleaved is false"),
    "short section": (lambda d: rope(d).update(mrope_section=[4, 5, 5]), r"\[4, 5, 5\] must add up"),
    "activation": (lambda d: d["vision_config"].update(hidden_act="gelu"), "hidden_act 'gelu' is"),
    "heads": (lambda d: d["text_config"].update(num_key_value_heads=3), "4 heads cannot share 3"),
    "no heads": (lambda d: d["text_config"].update(num_key_value_heads=0), "must be .* found 0"),
    "width": (lambda d: d["vision_config"].update(out_hidden_size=65), "out_hidden_size 65 differs .* 64"),
    "positions": (lambda d: d["vision_config"].update(num_position_embeddings=63), "63 is not a square"),
    "tap": (lambda d: d["vision_config"].update(deepstack_visual_indexes=[9]), r"\[9\] must name"),
    "no taps": (lambda d: d["vision_config"].update(deepstack_visual_indexes=[]), r"\[\] must name"),
    "size as text": (lambda d: d["text_config"].update(hidden_size="64"), "must be .* found '64'"),
}


@pytest.mark.parametrize(("change", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refused_in_one_sentence(folder: Path, change: Callable[[Document], object], message: str) -> None:
    changed(folder, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        shape_from_checkpoint(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tile_px", [0, 100, 16, -32])
def test_a_tile_that_does_not_divide_into_tokens_is_refused(folder: Path, tile_px: int) -> None:
    with pytest.raises(CheckpointError, match=f"a tile of {tile_px} px does not divide into tokens of 32 px"):
        shape_from_checkpoint(folder, tile_px=tile_px)


def test_a_grid_that_cannot_be_merged_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="a grid of 5 x 4 patches cannot be merged 2 x 2"):
        shape_from_checkpoint(folder, grid_hw=(5, 4))


def test_broken_json_names_the_file(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON"):
        shape_from_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        shape_from_checkpoint(folder)

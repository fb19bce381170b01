"""A checkpoint folder -> the float ONNX graphs and the embedding table, without torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...runtime.infer.shape import ModelShape
from .checkpoint import Weights, shape_from_folder, weights_from_file, weights_from_folder
from .decoder import PREFIX, decoder_to_file, word_head_to_file
from .inventory import check_dense_head, check_tensors
from .onnx_graph import LayerProgress, silent
from .vision import attributes_to_file, dense_types_from_weights, vision_to_file

DENSE_HEAD = "dense_head.safetensors"
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class GraphFiles:
    """What `graphs_from_checkpoint` wrote; `attributes` is None when the checkpoint has no dense head."""

    vision: Path
    decoder: Path
    head_schema: Path
    attributes: Path | None
    embeddings: Path
    shape: ModelShape
    dense_types: tuple[str, ...]


def graphs_from_checkpoint(
    folder: Path | str,
    out_dir: Path | str,
    *,
    tile_px: int = 128,
    grid_hw: tuple[int, int] | None = None,
    kept_ids: Sequence[int] | npt.NDArray[np.int64] | None = None,
    embeddings_type: str = "float32",
    progress: Callable[[str], None] = lambda component: None,
    layer_progress: LayerProgress = silent,
    done: Collection[str] = (),
    finished: Callable[[str], None] = lambda component: None,
) -> GraphFiles:
    """Write vision, decoder, head_schema and (with a dense head) attributes .onnx and embeddings.npy [V, H].

    `grid_hw` in patches replaces the square of `tile_px`. `kept_ids` are the rows of head_schema (None: all).
    `progress` is called with the name of each component before it is written, `finished` with it afterwards,
    `layer_progress` with (component, layers written, layers) inside vision and decoder. Components in `done`
    are there from before and are left alone. CheckpointError says what is wrong with the checkpoint, before
    anything is written; every file appears whole or not at all.
    """
    folder, out_dir = Path(folder), Path(out_dir)
    shape = shape_from_checkpoint(folder, tile_px=tile_px, grid_hw=grid_hw)
    weights, dense = checked_weights(folder, shape)
    out_dir.mkdir(parents=True, exist_ok=True)
    files = GraphFiles(
        vision=out_dir / "vision.onnx",
        decoder=out_dir / "decoder.onnx",
        head_schema=out_dir / "head_schema.onnx",
        attributes=None if dense is None else out_dir / "attributes.onnx",
        embeddings=out_dir / "embeddings.npy",
        shape=shape,
        dense_types=() if dense is None else dense_types_from_weights(dense),
    )
    ids = None if kept_ids is None else np.asarray(kept_ids, np.int64)
    writers: dict[str, Callable[[], None]] = {
        "vision": lambda: vision_to_file(files.vision, weights, shape, layer_progress),
        "decoder": lambda: decoder_to_file(files.decoder, weights, shape, layer_progress),
        "head_schema": lambda: word_head_to_file(files.head_schema, weights, shape, ids),
        "embeddings": lambda: embeddings_to_file(files.embeddings, weights, shape, embeddings_type),
    }
    if dense is not None:
        writers["attributes"] = lambda: attributes_to_file(out_dir / "attributes.onnx", dense, shape)
    for component, write in writers.items():
        if component not in done:
            progress(component)
            write()
            finished(component)
    return files


def checked_weights(folder: Path, shape: ModelShape) -> tuple[Weights, Weights | None]:
    """The model's tensors and, where there is one, the dense head's, each checked for names and shapes.

    CheckpointError names file and tensor; only the headers of the files are read.
    """
    weights = weights_from_folder(folder)
    check_tensors(weights, shape)
    place = folder / DENSE_HEAD
    dense = weights_from_file(place) if place.exists() else None
    if dense is not None:
        check_dense_head(dense, shape)
    return weights, dense


def shape_from_checkpoint(
    folder: Path | str, *, tile_px: int = 128, grid_hw: tuple[int, int] | None = None
) -> ModelShape:
    """Sizes for square tiles of `tile_px`, or for `grid_hw` patches; reads config.json only."""
    return shape_from_folder(Path(folder), tile_px=tile_px, grid_hw=grid_hw)


def embeddings_to_file(path: Path, weights: Weights, shape: ModelShape, number_type: str = "float32") -> None:
    """Write the token embeddings [V, H] as .npy (float32 or float16), a few thousand rows at a time."""
    if number_type not in ("float32", "float16"):
        raise ValueError(f"embeddings are float32 or float16; got {number_type}")
    partial = path.with_name(path.name + ".partial")
    try:
        size = (shape.vocab, shape.hidden)
        with partial.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": np.dtype(number_type).str, "fortran_order": False, "shape": size}
            )
            for start in range(0, shape.vocab, _ROWS_AT_ONCE):
                ids = np.arange(start, min(start + _ROWS_AT_ONCE, shape.vocab))
                rows = weights.rows(f"{PREFIX}embed_tokens.weight", size, ids)
                file.write(rows.astype(number_type).tobytes())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)

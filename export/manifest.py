"""What the manifest says about how a bundle was made: source, machine, memory, accuracy."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import __version__
from ..runtime.infer.bundle import CompiledRecipe, sha256_of_file
from ..runtime.infer.shape import ModelShape

DECODER_ROWS = 16
"""Tiles in one decoder call on the device; with it the predicted memory is counted."""

CHECKPOINT_FILES = ("*.safetensors", "*.json")
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "README.md")


def manifest_entries(
    checkpoint: Path,
    folder: Path,
    shape: ModelShape,
    dense_types: Sequence[str],
    compiled: Sequence[CompiledRecipe],
    created_at: datetime,
) -> dict[str, Any]:
    """The entries that do not depend on the precision; `folder` holds the finished graphs."""
    return {
        "created_at": created_at.isoformat(timespec="seconds"),
        "orinspect": __version__,
        "source": {
            "checkpoint": checkpoint.resolve().name,
            "checkpoint_sha256": checkpoint_digest(checkpoint),
        },
        "model": shape.to_json(),
        "dense_types": list(dense_types),
        "recipes": [one.recipe.id for one in compiled],
        "recipe_sha256": {one.recipe.id: one.recipe.sha256 for one in compiled},
        "cpu": cpu_name(),
        "onnxruntime": importlib.metadata.version("onnxruntime"),
        "predicted_peak_memory_bytes": predicted_memory_bytes(folder, shape, compiled),
    }


def checkpoint_digest(checkpoint: Path) -> str:
    """SHA-256 over the names and hashes of a checkpoint's tensors and configuration."""
    digest = hashlib.sha256()
    paths = {path for pattern in CHECKPOINT_FILES for path in checkpoint.glob(pattern)}
    for path in sorted(paths):
        digest.update(f"{path.name}:{sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def predicted_memory_bytes(folder: Path, shape: ModelShape, compiled: Sequence[CompiledRecipe]) -> int:
    """Upper estimate for one inspector: graphs twice (weights are repacked), embeddings, KV, scores."""
    graphs = sum(path.stat().st_size for path in folder.glob("*.onnx*"))
    embeddings = (folder / "embeddings.npy").stat().st_size
    longest = max(
        len(one.prefix_ids) + shape.tokens + len(one.suffix_ids) + one.recipe.token_budget for one in compiled
    )
    past = 4 * DECODER_ROWS * shape.layers * 2 * shape.kv_heads * longest * shape.head_dim
    scores = (
        4 * DECODER_ROWS * max(shape.vision_heads * shape.patches**2, shape.heads * shape.tokens * longest)
    )
    # the engine copies the past once, and softmax needs the scores twice
    return 2 * graphs + embeddings + 2 * past + 2 * scores


def cpu_name() -> str:
    """The processor's name as Linux knows it, else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def copy_licences(checkpoint: Path, folder: Path) -> None:
    """licences/: the checkpoint's licence and model card; a note where it has none."""
    target = folder / "licences"
    target.mkdir()
    paths = sorted({path for pattern in LICENCE_FILES for path in checkpoint.glob(pattern) if path.is_file()})
    for path in paths:
        shutil.copyfile(path, target / path.name)
    if not paths:
        note = f"The checkpoint folder {checkpoint.resolve().name} held no licence and no model card.\n"
        (target / "NONE.txt").write_text(note, encoding="utf-8")

"""Writes a bundle whole: into a temporary folder beside its place, synced to disk, then renamed into place.

Whatever goes wrong before the rename, nothing is left under the bundle's name and the temporary folder goes.
An existing bundle of that name is replaced only when it is one, and comes back when the rename fails.
Its manifest, written last, says how it was made: source, machine, memory, accuracy, every file's hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..runtime.errors import BundleError
from ..runtime.infer.bundle import MANIFEST, SCHEMA, CompiledRecipe, manifest_digest, sha256_of_file
from ..runtime.infer.decode import rows_a_call
from ..runtime.infer.pictures.views import pictures_a_call
from ..runtime.infer.shape import ModelShape

CHECKPOINT_FILES = ("*.safetensors", "*.json")
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "README.md")


@contextlib.contextmanager
def bundle_folder(out: str | Path) -> Iterator[Path]:
    """A temporary folder to fill; on leaving it becomes `out`, or disappears when an error passes through.

    BundleError when `out` exists and is not a bundle, so that a mistyped path never deletes somebody's files,
    and when the disk refuses.
    """
    out = Path(out).absolute()
    if out.exists() and not (out / MANIFEST).is_file() and not _is_empty_folder(out):
        raise BundleError(f"{out} exists and is not a bundle; give a new folder, or remove this one")
    temporary: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
        yield temporary
        temporary.chmod(0o755)
        sync_tree(temporary)
        _put_in_place(temporary, out)
    except OSError as error:
        raise BundleError(
            f"{out} cannot be written ({error}); nothing is left of it, see to the disk"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def drop_unfinished(out: Path) -> None:
    """Remove what killed exports of the bundle `out` left of their temporary folders, gigabytes of a 2B."""
    name = re.compile(rf"\.{re.escape(out.name)}\.[a-z0-9_]+\.part")
    for place in out.parent.iterdir():
        if name.fullmatch(place.name):
            shutil.rmtree(place, ignore_errors=True)


def write_recipe(folder: Path, compiled: CompiledRecipe) -> None:
    """recipes/<id>/ of one compiled recipe, in a bundle folder under construction."""
    place = folder / "recipes" / compiled.recipe.id
    place.mkdir(parents=True, exist_ok=True)  # a work folder has it from an earlier try
    (place / "recipe.json").write_text(compiled.recipe.to_json(), encoding="utf-8")
    (place / "guide.json").write_text(compiled.guide.to_json(), encoding="utf-8")
    prompt = {
        "prefix_ids": list(compiled.prefix_ids),
        "suffix_ids": list(compiled.suffix_ids),
        "between_ids": list(compiled.between_ids),
        "next_position": compiled.next_position,
    }
    (place / "prompt.json").write_text(json.dumps(prompt), encoding="utf-8")
    np.save(place / "prefix_kv.npy", compiled.prefix_kv, allow_pickle=False)


def write_vocabulary(folder: Path, vocabulary: Mapping[int, bytes]) -> None:
    """vocabulary.json: kept token id -> its bytes as Latin-1 text, so that the device needs no tokenizer."""
    table = {str(identity): vocabulary[identity].decode("latin-1") for identity in sorted(vocabulary)}
    (folder / "vocabulary.json").write_text(json.dumps(table), encoding="utf-8")


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
    """Upper estimate for one inspector on ONNX Runtime: graphs twice (weights are repacked), embeddings, and
    the keys, values and attention scores of the recipe that needs most.
    """
    graphs = sum(
        path.stat().st_size
        for pattern in ("*.onnx*", "*.weights")
        for path in folder.glob(pattern)
        if ".tensorrt." not in path.name
    )
    embeddings = (folder / "embeddings.npy").stat().st_size
    # the engine copies the past once, and softmax needs the scores twice
    return 2 * graphs + embeddings + 2 * max(_working_bytes(shape, one) for one in compiled)


def _working_bytes(shape: ModelShape, compiled: CompiledRecipe) -> int:
    """Keys and values of one decoder call at its longest, and the attention scores of the largest call."""
    rows = rows_a_call(compiled, shape)
    texts = sum(map(len, compiled.between_ids)) + len(compiled.suffix_ids)
    tokens, prefix = compiled.recipe.pictures * shape.tokens + texts, len(compiled.prefix_ids)
    past = 4 * int(np.prod(shape.past_kv_shape(rows, prefix + tokens + compiled.recipe.token_budget)))
    seeing = pictures_a_call(compiled.recipe, shape) * shape.vision_scores_bytes
    return past + max(seeing, rows * shape.decoder_scores_bytes(tokens, prefix))


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
    target.mkdir(exist_ok=True)
    paths = sorted({path for pattern in LICENCE_FILES for path in checkpoint.glob(pattern) if path.is_file()})
    for path in paths:
        shutil.copyfile(path, target / path.name)
    if not paths:
        note = f"The checkpoint folder {checkpoint.resolve().name} held no licence and no model card.\n"
        (target / "NONE.txt").write_text(note, encoding="utf-8")


def write_manifest(folder: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """manifest.json over every file that is in the folder now, written last. Returns its content."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            name = path.relative_to(folder).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    manifest: dict[str, Any] = {"schema": SCHEMA, **entries, "files": files}
    # as JSON gives it back, so that the hash does not depend on tuples and other things that JSON rewrites
    manifest = json.loads(json.dumps(manifest))
    manifest["manifest_sha256"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return manifest


def _put_in_place(temporary: Path, out: Path) -> None:
    """Rename; a folder that stands there steps aside first and returns when the rename fails."""
    aside = temporary.with_suffix(".old")
    had_one = out.exists()
    if had_one:
        os.rename(out, aside)
    try:
        os.rename(temporary, out)
    except OSError:
        if had_one:
            os.rename(aside, out)
        raise
    _sync(out.parent)
    shutil.rmtree(aside, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """fsync of everything below `folder`, and of itself."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    """fsync of a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())

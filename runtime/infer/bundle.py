"""A bundle: the folder that `orinspect export` writes and the device runs from.

    manifest.json                      sizes and SHA-256 of every other file, and how the bundle was made
    vision.onnx attributes.onnx decoder.onnx head_schema.<recipe>.onnx
    embeddings.npy                     [vocabulary, hidden], memory-mapped
    vocabulary.json                    kept token id -> the bytes it writes (as Latin-1 text)
    recipes/<id>/recipe.json guide.json prompt.json prefix_kv.npy
    judgement.json                     optional: what labelled pictures said of its confidences
    licences/

A file that is missing, truncated or altered is a BundleError that names it. Nothing here is ever a pickle.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BundleError, RecipeError
from ..recipe import RECIPE_ID, Recipe
from ..tables import json_value
from .guide import Guide
from .shape import ModelShape

SCHEMA = "orinspect.bundle/1.0"
MANIFEST = "manifest.json"
NO_ARRAY = (
    OSError, EOFError, ValueError, SyntaxError, TypeError, OverflowError, TokenError, MemoryError,
)  # fmt: skip
"""What NumPy raises for a file that is no array: it reads the header as Python, and may ask for any size."""
REQUIRED: dict[str, type] = {"files": dict, "model": dict, "recipes": list, "precision": str}
"""Entries without which a manifest is refused."""


@dataclass(frozen=True)
class CompiledRecipe:
    """One recipe, ready to run: its guide, its prompt's ids, and the keys and values of the prefix."""

    recipe: Recipe
    guide: Guide
    prefix_kv: npt.NDArray[np.float32]  # [layers, 2, kv_heads, prefix tokens, head_dim]
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    between_ids: tuple[tuple[int, ...], ...]  # between each two pictures of a tile; empty for one picture
    next_position: int  # the M-RoPE position after the prefix
    kept_ids: npt.NDArray[np.int64]  # rows of head_schema, = guide.kept_ids
    vocabulary: dict[int, bytes]  # kept token id -> bytes


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; reading one changes nothing on disk. Build it with `Bundle.open`."""

    path: Path
    manifest: dict[str, Any]
    sha256: str
    shape: ModelShape

    @classmethod
    def open(cls, path: str | Path, verify: bool = True) -> Bundle:
        """Open a bundle folder. Presence and size of every file are always checked, hashes with `verify`."""
        path = Path(path)
        document, manifest = _manifest(path)
        for name, entry in manifest["files"].items():
            _check_file(path, name, entry, verify)
        shape = ModelShape.from_json(manifest["model"])
        return cls(path, manifest, hashlib.sha256(document).hexdigest(), shape)

    @property
    def id(self) -> str:
        """A short name for reports: the first 16 signs of the manifest's hash."""
        return self.sha256[:16]

    @property
    def precision(self) -> str:
        """`int8` or `float32`."""
        return str(self.manifest["precision"])

    @property
    def recipe_ids(self) -> tuple[str, ...]:
        """The recipes inside, the default one first."""
        return tuple(self.manifest["recipes"])

    @property
    def dense_types(self) -> tuple[str, ...]:
        """Defect types of the dense head's outputs, in their order; empty without a dense head."""
        return tuple(self.manifest.get("dense_types", ()))

    @property
    def components(self) -> tuple[str, ...]:
        """The graphs inside, without the ending: vision, attributes, decoder, head_schema.<recipe>.

        Their TensorRT flavours (*.tensorrt*.onnx) are none of their own; tensorrt.json names those.
        """
        graphs = [name[: -len(".onnx")] for name in self.manifest["files"] if name.endswith(".onnx")]
        return tuple(name for name in graphs if ".tensorrt" not in name)

    @property
    def embeddings(self) -> npt.NDArray[Any]:
        """[vocabulary, hidden] float16 or float32, memory-mapped, read-only."""
        return np.asanyarray(_array(self.path / "embeddings.npy", mmap=True))

    def graph(self, component: str) -> Path:
        """Path of one component's ONNX file; BundleError when the bundle has none."""
        if component not in self.components:
            raise BundleError(
                f"bundle {self.path.name} has no graph {component!r}; it has {', '.join(self.components)}"
            )
        return self.path / f"{component}.onnx"

    def recipe(self, recipe_id: str | None = None) -> CompiledRecipe:
        """One compiled recipe, the default one for None; RecipeError when the bundle has no such recipe."""
        chosen = self.recipe_ids[0] if recipe_id is None else recipe_id
        if chosen not in self.recipe_ids:
            raise RecipeError(
                f"bundle {self.path.name} has no recipe {chosen!r}; it has {', '.join(self.recipe_ids)}"
            )
        folder = self.path / "recipes" / chosen
        guide = Guide.from_json(_text(folder / "guide.json"))
        prompt = _json(folder / "prompt.json")
        signs = _json(self.path / "vocabulary.json")
        kept = [int(identity) for identity in guide.kept_ids]
        try:
            return CompiledRecipe(
                recipe=Recipe.from_json(_text(folder / "recipe.json"), str(folder / "recipe.json")),
                guide=guide,
                prefix_kv=_array(folder / "prefix_kv.npy").astype(np.float32),
                prefix_ids=tuple(map(int, prompt["prefix_ids"])),
                suffix_ids=tuple(map(int, prompt["suffix_ids"])),
                between_ids=tuple(
                    # a flat list is of a bundle from before several pictures could run
                    tuple(map(int, ids))
                    for ids in prompt.get("between_ids", ())
                    if isinstance(ids, list)
                ),
                next_position=int(prompt["next_position"]),
                kept_ids=guide.kept_ids,
                vocabulary={identity: signs[str(identity)].encode("latin-1") for identity in kept},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BundleError(
                f"{folder} is incomplete or broken ({error!r}); export the bundle again"
            ) from error


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Hash over the manifest without its own `manifest_sha256`, so that an edited manifest is noticed too."""
    rest = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces of 1 MiB; OSError as open() raises it."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _manifest(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The manifest's bytes and its content, of a schema that this version reads."""
    if not path.is_dir():
        raise BundleError(f"{path}: no such folder; give the folder that `orinspect export` wrote")
    place = path / MANIFEST
    if not place.is_file():
        raise BundleError(
            f"{path} is not a bundle: it has no {MANIFEST}; give the folder that `orinspect export` wrote"
        )
    document = place.read_bytes()
    try:
        manifest = json_value(document)
        schema = str(manifest["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{place} is truncated or altered ({error}); copy the bundle again") from error
    if not schema.startswith("orinspect.bundle/"):
        raise BundleError(f"{path} is not a bundle: its schema is {schema!r}, expected {SCHEMA!r}")
    # a minor version only adds optional entries
    if schema.split("/")[1].split(".")[0] != SCHEMA.split("/")[1].split(".")[0]:
        raise BundleError(
            f"{path}: the bundle has schema {schema!r}, this orinspect reads {SCHEMA!r};"
            " update orinspect or export the checkpoint again with this version"
        )
    if manifest.get("manifest_sha256") != manifest_digest(manifest):
        raise BundleError(f"{place} was altered: its own hash does not fit; copy the bundle again")
    for key, kind in REQUIRED.items():
        if not isinstance(manifest.get(key), kind) or not manifest[key]:
            raise BundleError(f"{place} has no usable entry {key!r}; export the checkpoint again")
    for name in manifest["recipes"]:
        if not isinstance(name, str) or not RECIPE_ID.fullmatch(name):
            raise BundleError(f"{place} lists the recipe {name!r:.80}, which names no folder; copy the bundle"
                              " again")
    types = manifest.get("dense_types", [])
    if not isinstance(types, list) or not all(isinstance(name, str) for name in types):
        raise BundleError(f"{place} has no usable entry 'dense_types'; export the checkpoint again")
    return document, manifest


def _check_file(folder: Path, name: str, entry: Any, verify: bool) -> None:
    """One file against its manifest entry; `name` is relative to the bundle and must stay inside it."""
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise BundleError(f"{MANIFEST} lists {name!r}, which lies outside the bundle; copy the bundle again")
    if not (isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and "sha256" in entry):
        raise BundleError(f"{MANIFEST} lists {name!r} with {entry!r:.80}, not its bytes and sha256; copy the"
                          " bundle again")
    path = folder / name
    try:
        is_there = path.is_file()
    except OSError:  # a name that no file can have
        is_there = False
    if not is_there:
        raise BundleError(f"{path!s:.300} is missing; copy the bundle again")
    size = path.stat().st_size
    if size != entry["bytes"]:
        how = "truncated" if size < entry["bytes"] else "altered"
        raise BundleError(f"{path} is {how}: {size} bytes, expected {entry['bytes']}; copy the bundle again")
    if verify and sha256_of_file(path) != entry["sha256"]:
        raise BundleError(f"{path} was altered: its SHA-256 does not fit the manifest; copy the bundle again")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read ({error}); copy the bundle again") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        table = json_value(_text(path))
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}); copy the bundle again") from error
    if not isinstance(table, dict):
        raise BundleError(f"{path} holds no object; export the bundle again")
    return table


def _array(path: Path, mmap: bool = False) -> npt.NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except NO_ARRAY as error:
        raise BundleError(f"{path} is not an array ({error}); copy the bundle again") from error
    return np.asanyarray(array)

"""A folder of installed bundles: a good one of two recipes with golden frames, and what may lie beside it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from orinspect.export import golden
from orinspect.export.bundle import write_manifest
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines.engine import FloatArray
from orinspect.runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from orinspect.runtime.recipe import Recipe, load_recipe
from orinspect.tests.small_bundle import RECIPE, write_small_bundle

FIRST, SECOND = "pcb-compare", "second"


def write_installed(folder: Path) -> Path:
    """`bundles/` with `good`, `other` (as good), `wrong` (an engine that its golden frame forbids) and
    `broken` (a file is cut off). Bundles hold the recipes FIRST and SECOND."""
    bundles = folder / "bundles"
    bundles.mkdir()
    made = write_small_bundle(folder, _recipe())
    _add_recipe(made)
    _add_golden(made, 0.0)
    shutil.copytree(made.path, bundles / "good")
    _add_golden(made, 1.0)
    shutil.copytree(made.path, bundles / "wrong")
    shutil.copytree(bundles / "good", bundles / "other")
    again = Bundle.open(bundles / "other")
    write_manifest(again.path, {**again.manifest, "note": "another export"})
    shutil.copytree(bundles / "good", bundles / "broken")
    cut = bundles / "broken" / "vision.onnx"
    cut.write_bytes(cut.read_bytes()[:-1])
    return bundles


def break_golden(bundle: Path) -> None:
    """From here on the engines of this bundle are not what its golden frame says."""
    _add_golden(Bundle.open(bundle), 1.0)


def _recipe() -> Recipe:
    recipe = load_recipe(RECIPE)
    assert recipe.id == FIRST
    return recipe


def _add_recipe(bundle: Bundle) -> None:
    """The first recipe once more, under another name."""
    second = dataclasses.replace(_recipe(), id=SECOND, version="2")
    shutil.copytree(bundle.path / "recipes" / FIRST, bundle.path / "recipes" / SECOND)
    (bundle.path / "recipes" / SECOND / "recipe.json").write_text(second.to_json(), encoding="utf-8")
    head = bundle.path / f"head_schema.{FIRST}.onnx"
    shutil.copy(head, head.with_name(f"head_schema.{SECOND}.onnx"))
    write_manifest(bundle.path, {**bundle.manifest, "recipes": [FIRST, SECOND]})


def _add_golden(bundle: Bundle, off: float) -> None:
    """A golden frame of the vision engine whose outputs lie `off` from what it gives."""
    bundle = Bundle.open(bundle.path)
    shape, draw = bundle.shape, np.random.default_rng(3)

    def exact(component: str, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        with OnnxruntimeEngine(bundle.path / f"{component}.onnx", threads=1) as engine:
            return engine.run(feeds)

    patches = draw.uniform(-1, 1, (2, shape.patches, shape.patch_features)).astype(np.float32)
    entry, _ = golden.write_golden_frame(bundle.path, "vision", {"patches": patches}, exact)
    if off:
        path = bundle.path / str(entry["file"])
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        for name in arrays:
            if name.startswith("expected/"):
                arrays[name] = arrays[name] + np.float32(off)
        np.savez(path, **arrays)
    write_manifest(bundle.path, {**bundle.manifest, "golden": {"vision": entry}})

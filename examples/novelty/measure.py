"""What a bundle's novelty limit lets pass and what it catches: parts as they are, and parts that are not its.

python -m orinspect.examples.novelty.measure BUNDLE DATASET [--split train] [--parts 20] [--kinds NAME ...]

For recipes of mode compare. The parts are those of the data set beside their own templates; made unlike, the
template stays, as it does on a line where something else lies under the camera.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...evaluation.evaluate import thinned_rows
from ...evaluation.rates.binomial import share_with_bounds
from ...evaluation.sets.source import check_fits, rows_from_source
from ...runtime.capture.frame import Frame
from ...runtime.capture.scenes.metal import metal_scene
from ...runtime.errors import BundleError
from ...runtime.infer.bundle import Bundle
from ...runtime.infer.inspector import Inspector
from ...runtime.infer.pictures.register import ByteArray

Unlike = Callable[[ByteArray, ByteArray, int], ByteArray]
"""A part, another part of the data set, and a seed -> the picture that is shown instead of the part."""


def _metal(part: ByteArray, other: ByteArray, seed: int) -> ByteArray:
    """A metal surface in the part's size."""
    return _sized(cv2.cvtColor(metal_scene(seed).image, cv2.COLOR_BGR2GRAY), part)


def _noise(part: ByteArray, other: ByteArray, seed: int) -> ByteArray:
    return np.random.default_rng(seed).integers(0, 256, part.shape[:2]).astype(np.uint8)


def _texture(part: ByteArray, other: ByteArray, seed: int) -> ByteArray:
    """Smooth noise, 6 px grain."""
    rough = np.random.default_rng(seed).standard_normal(part.shape[:2]).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(rough, (0, 0), 6.0), np.float32)
    return np.clip(128 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def _print(part: ByteArray, other: ByteArray, seed: int) -> ByteArray:
    """Large letters over the part: a foreign thing on a small share of it."""
    rng = np.random.default_rng(seed)
    height, width = part.shape[:2]
    at = (int(rng.integers(0, width // 3)), int(rng.integers(height // 3, height)))
    level = int(rng.choice([0, 255]))
    drawn = cv2.putText(part.copy(), f"ABC{seed % 1000}", at, cv2.FONT_HERSHEY_SIMPLEX, 4, level, 14)
    return np.asarray(drawn, np.uint8)


def _sized(picture: Any, part: ByteArray) -> ByteArray:
    return np.asarray(cv2.resize(picture, (part.shape[1], part.shape[0])), np.uint8)


KINDS: dict[str, Unlike] = {
    "as they are": lambda part, other, seed: part,
    "another board": lambda part, other, seed: _sized(other, part),
    "inverted": lambda part, other, seed: np.asarray(255 - part, np.uint8),
    "metal": _metal,
    "texture": _texture,
    "noise": _noise,
    "print": _print,
}


def shares_beyond(
    bundle_path: Path, dataset: str, *, split: str | None, parts: int | None, kinds: list[str],
) -> dict[str, Any]:
    """Shares of parts whose novelty is above 1, with exact 95 % bounds, and the bundle's own figures.

    `parts`: of each kind, all for None. BundleError where the bundle has no novelty.
    """
    with Inspector(Bundle.open(bundle_path), None, 1, ("dense",), looks_again=False) as inspector:
        section = inspector.judgement.novelty
        if section is None:
            raise BundleError(f"{bundle_path} has no novelty; run `orinspect calibrate confidence`")
        recipe = inspector.recipe
        rows = rows_from_source(dataset, split=split, box_margin_px=recipe.box_margin_px, types=recipe.types)
        rows = thinned_rows(rows, parts)
        check_fits(rows[0].read(), recipe, dataset)
        names = ("limit", "parts", "groups", "expected_share", "worst_share")
        result: dict[str, Any] = {"recipe": recipe.id, **{name: section.get(name) for name in names}}
        frames = [row.read().frame(index) for index, row in enumerate(rows)]
        for kind in kinds:
            found = [_novelty(inspector, frames, index, KINDS[kind]) for index in range(len(frames))]
            beyond = share_with_bounds(sum(one > 1 for one in found), len(found))
            result[kind] = {**beyond, "median": float(np.median(found))}
    return result


def _novelty(inspector: Inspector, frames: list[Frame], index: int, how: Unlike) -> float:
    other = frames[(index + len(frames) // 2) % len(frames)].image
    shown = replace(frames[index], image=how(frames[index].image, other, index))
    return inspector.inspect(shown).novelty or 0.0


def main(words: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="what the novelty limit of a bundle lets pass and catches")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--split", choices=("train", "validation", "all"))
    parser.add_argument("--parts", type=int, help="of each kind (all)")
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(words)
    result = shares_beyond(
        asked.bundle, asked.dataset, split=asked.split, parts=asked.parts, kinds=asked.kinds
    )
    if asked.json:
        print(json.dumps(result))
        return 0
    print(f"{result['recipe']}: limit {result['limit']:g} from {result['parts']} parts of {result['groups']}"
          f" groups; of a new group {result['expected_share']:.1%} expected beyond it")
    for kind in asked.kinds:
        row = result[kind]
        print(f"{kind:14} {row['count']:4} of {row['parts']:4} beyond, {row['rate']:6.1%}"
              f" ({row['low']:.1%} to {row['high']:.1%}), median novelty {row['median']:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

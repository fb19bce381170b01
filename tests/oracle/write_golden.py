"""Writes tests/golden/parity-*.npz: what transformers answers on the cases, for tests that have no torch.

After a change of the cases, where torch is: python -m orinspect.tests.oracle.write_golden [CASE...]
Prints how far our graphs are from it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from orinspect.tests.float_pipeline import FloatPipeline
from orinspect.tests.oracle.transformers_model import TransformersModel
from orinspect.tests.parity_cases import (
    CASES,
    GOLDEN,
    GOLDEN_COLUMN_STEP,
    GOLDEN_TEXTS,
    drawn_ids,
    drawn_pictures,
)

STEPS = 64


def main() -> None:
    """One file a case: image tokens, DeepStack, logits (every n-th column), 64 greedy tokens, positions."""
    GOLDEN.mkdir(exist_ok=True)
    for name, case in CASES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, files = case.written(Path(folder))
            ours, theirs = FloatPipeline(files), TransformersModel(checkpoint, case.grid_hw)
            pictures = drawn_pictures(files.shape, len(GOLDEN_TEXTS) - 1, seed=101)
            ids = drawn_ids(files.shape, GOLDEN_TEXTS, seed=102)
            image_tokens, deepstack = theirs.see(np.stack(pictures))
            logits = theirs.all_logits(ids, pictures)
            prompt = ours.prompt(ids, pictures)
            _print_distance(
                name, ours, np.stack(pictures), (image_tokens, deepstack), ours.all_logits(prompt) - logits
            )
            np.savez_compressed(
                GOLDEN / f"parity-{name}.npz",
                image_tokens=image_tokens,
                deepstack=deepstack,
                logits=logits[:, ::GOLDEN_COLUMN_STEP],
                greedy=np.array(theirs.greedy(ids, pictures, STEPS), np.int64),
                patch_sum=np.stack(pictures).sum(dtype=np.float64),
                embedding_sum=ours.embeddings.sum(dtype=np.float64),
            )


def _print_distance(
    name: str,
    ours: FloatPipeline,
    pictures: np.ndarray,
    seen: tuple[np.ndarray, np.ndarray],
    logit_difference: np.ndarray,
) -> None:
    vision = max(
        float(np.abs(found - expected).max())
        for found, expected in zip(ours.see(pictures), seen, strict=True)
    )
    print(f"{name:10} vision {vision:.1e}  logits {np.abs(logit_difference).max():.1e}")


if __name__ == "__main__":
    main()

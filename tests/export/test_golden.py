"""The exported graphs against what transformers answered when tests/oracle/write_golden.py ran."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from orinspect.tests.float_pipeline import FloatPipeline, Prompt
from orinspect.tests.parity_cases import (
    CASES,
    GOLDEN,
    GOLDEN_COLUMN_STEP,
    GOLDEN_TEXTS,
    drawn_ids,
    drawn_pictures,
)


@dataclass
class Golden:
    """Our side of one case, its golden arrays and the prompt that both saw."""

    ours: FloatPipeline
    arrays: dict[str, npt.NDArray[np.float32]]
    pictures: npt.NDArray[np.float32]
    prompt: Prompt


@pytest.fixture(scope="module", params=list(CASES))
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Golden]:
    _, files = CASES[request.param].written(tmp_path_factory.mktemp(request.param))
    ours = FloatPipeline(files)
    pictures = drawn_pictures(files.shape, len(GOLDEN_TEXTS) - 1, seed=101)
    with np.load(GOLDEN / f"parity-{request.param}.npz") as arrays:
        yield Golden(
            ours,
            dict(arrays),
            np.stack(pictures),
            ours.prompt(drawn_ids(files.shape, GOLDEN_TEXTS, seed=102), pictures),
        )


def test_the_random_stream_is_the_one_of_the_golden_run(golden: Golden) -> None:
    """numpy may change its streams between releases: then write the files again, nothing is broken."""
    assert golden.pictures.sum(dtype=np.float64) == pytest.approx(float(golden.arrays["patch_sum"]))
    assert golden.ours.embeddings.sum(dtype=np.float64) == pytest.approx(
        float(golden.arrays["embedding_sum"])
    )


def test_vision_is_as_golden(golden: Golden) -> None:
    for found, name in zip(golden.ours.see(golden.pictures), ("image_tokens", "deepstack"), strict=True):
        assert np.abs(found - golden.arrays[name]).max() <= 1e-4


@pytest.mark.parametrize("chunks", [(), (1, 5, 20)], ids=["at once", "in chunks"])
def test_logits_are_as_golden(golden: Golden, chunks: tuple[int, ...]) -> None:
    rest = len(golden.prompt.embeds) - sum(chunks)
    found = golden.ours.all_logits(golden.prompt, [*chunks, rest] if chunks else ())
    assert np.abs(found[:, ::GOLDEN_COLUMN_STEP] - golden.arrays["logits"]).max() <= 1e-4


def test_greedy_tokens_are_as_golden(golden: Golden) -> None:
    steps = len(golden.arrays["greedy"])
    assert steps == 64
    assert golden.ours.greedy([golden.prompt], steps) == [golden.arrays["greedy"].tolist()]

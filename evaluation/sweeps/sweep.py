"""Inspect a labelled data set under disturbances of growing strength; F at each, and the certified range.

The template of a compare recipe stays as it is: the golden picture was taken in good light, and it is the
part that is dark, blurred or glaring. That is the hard case, and the one that a line has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...calibration.limits.certified import ALLOWED_LOSS, quality_section
from ...calibration.limits.disturbance import KINDS, Disturbance, disturbance_of, disturbed
from ...runtime.capture.frame import Frame
from ...runtime.capture.quality import Quality, picture_quality, within
from ...runtime.errors import DataSetError, UsageError
from ...runtime.infer.bundle import Bundle
from ...runtime.infer.inspector import Inspector
from ..evaluate import rounded, thinned_rows
from ..rates.resampling import trusted_names
from ..scorecard import boxes_of, counted_boxes
from ..scores import ScoredPicture
from ..sets.example import Example, Row
from ..sets.source import calibration_split, check_fits, rows_from_source
from ..terminal import Progress
from ..warp import is_binarised
from .steps import REFINEMENTS, Looked, has_failed, tried_strengths

PICTURES = 80
BATCH = 16
"""Pictures after which a strength may be given up."""
KEPT_BYTES = 512 << 20
"""Pictures that are kept in memory for the next strength, rather than read or drawn again."""


def limits_from_dataset(
    bundle_path: Path, dataset: str, *, recipe_id: str | None = None, split: str | None = None,
    list_path: Path | None = None, limit: int | None = PICTURES, kinds: Sequence[str] = tuple(KINDS),
    allowed_loss: float = ALLOWED_LOSS, threads: int = 2, seed: int = 1, progress: Progress | None = None,
) -> dict[str, Any]:
    """Sweep every kind over about `limit` rows; one JSON-ready object with the section to store in `quality`.

    Without a split it is the training side, where the data set has one: limits that are stored are not set on
    pictures that the bundle is scored on. UsageError for an unknown kind, DataSetError when the data set has
    no true defect or no picture.
    """
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise UsageError(f"disturbance {unknown[0]!r} is unknown; known are {', '.join(KINDS)}")
    bundle = Bundle.open(bundle_path)
    with Inspector(bundle, recipe_id, threads, looks_again=False) as inspector:  # F does not hear it
        recipe = inspector.recipe
        if split is None and list_path is None:
            split = calibration_split(dataset)
        rows = rows_from_source(dataset, split=split, list_path=list_path,
                                box_margin_px=recipe.box_margin_px, types=recipe.types)
        rows = shuffled(thinned_rows(rows, limit), seed)
        check_fits(rows[0].read(), recipe, dataset)
        names = trusted_names([row.group for row in rows])
        sweep = _Sweep(inspector, rows, names, seed, allowed_loss, progress)
        clean = sweep.undisturbed(steps=1 + sum(len(KINDS[kind][1]) + REFINEMENTS for kind in kinds))
        if not any(picture.truth for picture in clean.pictures):
            raise DataSetError(f"{dataset}: {len(rows)} pictures without a labelled defect; F means nothing")
        sweeps = {kind: tried_strengths(kind, partial(sweep.at, kind, clean), clean, names, allowed_loss)
                  for kind in kinds}
    section = quality_section(clean.qualities, sweeps, allowed_loss)
    for kind, points in sweeps.items():
        for row, point in zip(section["sweeps"][kind]["points"], points, strict=True):
            row["outside"] = float(np.mean([bool(within(one, section)) for one in point.qualities]))
    f = clean.f(np.ones((1, len(rows))))[0]
    return dict(rounded({
        "dataset": dataset, "split": split, "bundle": {"id": bundle.id, "precision": bundle.precision},
        "recipe": recipe.id, "mode": recipe.mode, "pictures": len(rows), "seed": seed,
        "defects": sum(len(one.truth) for one in clean.pictures), "f_clean": float(f),
        "two_tone_pictures": sweep.two_tone, "looks": sweep.looks,
        "template": "clean" if recipe.mode == "compare" else None, "quality": section,
    }))


def shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    """In an order without meaning, so that the first few speak for all: lists stand by class or by board."""
    return [rows[int(index)] for index in np.random.default_rng([seed, len(rows)]).permutation(len(rows))]


class _Sweep:
    """The same rows again and again; a picture's own disturbance has the same place at every strength."""

    def __init__(
        self, inspector: Inspector, rows: Sequence[Row], names: Sequence[str], seed: int,
        allowed_loss: float, progress: Progress | None,
    ) -> None:
        self._inspector, self._rows, self._names, self._seed = inspector, rows, names, seed
        self._allowed_loss, self._progress = allowed_loss, progress
        self._kept: dict[int, Example] = {}
        self._kept_bytes = self._done = self._steps = 0
        self.two_tone = self.looks = 0

    def undisturbed(self, steps: int) -> Looked:
        """Every row as it is; `steps`: how many looks like this there will be at most, for the progress."""
        self._steps = steps * len(self._rows)
        self.two_tone = sum(is_binarised(self._example(index).image) for index in range(len(self._rows)))
        return self._looked(Disturbance(), None)

    def at(self, kind: str, clean: Looked, strength: float) -> Looked:
        """Every row at one strength of a kind, or the first rows where those have failed already."""
        return self._looked(disturbance_of(kind, strength), clean)

    def _looked(self, how: Disturbance, clean: Looked | None) -> Looked:
        pictures: list[ScoredPicture] = []
        qualities: list[Quality] = []
        for index in range(len(self._rows)):
            example = self._example(index)
            frame = example.frame(index + 1)
            rng = np.random.default_rng([self._seed, index])
            frame = replace(frame, image=disturbed(frame.image, how, rng))
            pictures.append(scored_frame(self._inspector, frame, example))
            template = frame.template if self._inspector.recipe.mode == "compare" else None
            qualities.append(picture_quality(frame.image, template))
            self.looks += 1
            if self._progress:
                self._progress(min(self._done + len(pictures), self._steps), self._steps, "limits")
            if clean is not None and len(pictures) % BATCH == 0 and len(pictures) < len(self._rows):
                looked = Looked(tuple(pictures), tuple(qualities))
                if has_failed(looked, clean, self._names, self._allowed_loss):
                    break
        self._done += len(self._rows)
        return Looked(tuple(pictures), tuple(qualities))

    def _example(self, index: int) -> Example:
        """Row `index`, read or drawn once as far as there is room."""
        if index in self._kept:
            return self._kept[index]
        example = self._rows[index].read()
        size = example.image.nbytes + (0 if example.template is None else example.template.nbytes)
        if self._kept_bytes + size <= KEPT_BYTES:
            self._kept[index], self._kept_bytes = example, self._kept_bytes + size
        return example


def scored_frame(inspector: Inspector, frame: Frame, example: Example) -> ScoredPicture:
    """What the bundle reports on one frame, beside the truth; a failed answer reports what it has."""
    boxes = boxes_of(inspector.inspect(frame).defects)
    return ScoredPicture(example.truth, counted_boxes(boxes, example.truth, example.ignored))


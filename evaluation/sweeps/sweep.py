"""Inspect a labelled data set under disturbances of growing strength; F at each, and the certified range.

The template of a compare recipe stays as it is: the golden picture was taken in good light, and it is the
part that is dark, blurred or glaring. That is the hard case, and the one that a line has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...calibration.limits.certified import ALLOWED_LOSS, SweepPoint, quality_section
from ...calibration.limits.disturbance import KINDS, Disturbance, disturbance_of, disturbed
from ...runtime.capture.frame import Frame
from ...runtime.errors import DataSetError, UsageError
from ...runtime.infer.bundle import Bundle
from ...runtime.infer.inspector import Inspector
from ...runtime.judge.quality import Quality, picture_quality, within
from ..evaluate import rounded, thinned_rows
from ..rates.resampling import group_weights, percentile_interval, trusted_names
from ..rates.tally import Tally
from ..scorecard import boxes_of, counted_boxes
from ..scores import ScoredPicture
from ..sets.example import Example, Row
from ..sets.source import calibration_split, check_fits, rows_from_source
from ..terminal import Progress
from ..warp import is_binarised

Floats = npt.NDArray[np.float64]
PICTURES = 40


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
        rows = thinned_rows(rows, limit)
        check_fits(rows[0].read(), recipe, dataset)
        steps = [(kind, strength) for kind in kinds for strength in KINDS[kind][1]]
        sweep = _Sweep(inspector, rows, seed, len(steps) + 1, progress)
        clean, two_tone = sweep.at(Disturbance()), sweep.two_tone
        if not clean.tally.counts[:, 2].sum():
            raise DataSetError(f"{dataset}: {len(rows)} pictures without a labelled defect; F means nothing")
        weights = group_weights(trusted_names([row.group for row in rows]))
        found = {step: sweep.at(disturbance_of(*step)) for step in steps}
    sweeps = {
        kind: [_point(strength, found[kind, strength], clean, weights) for strength in KINDS[kind][1]]
        for kind in kinds
    }
    section = quality_section(clean.qualities, sweeps, allowed_loss)
    for kind, points in sweeps.items():
        for row, point in zip(section["sweeps"][kind]["points"], points, strict=True):
            row["outside"] = float(np.mean([bool(within(one, section)) for one in point.qualities]))
    f = clean.tally.precision_recall_f(np.ones((1, len(rows))))[2][0]
    return dict(rounded({
        "dataset": dataset, "split": split, "bundle": {"id": bundle.id, "precision": bundle.precision},
        "recipe": recipe.id, "mode": recipe.mode, "pictures": len(rows), "seed": seed,
        "defects": int(clean.tally.counts[:, 2].sum()), "f_clean": float(f), "two_tone_pictures": two_tone,
        "template": "clean" if recipe.mode == "compare" else None, "quality": section,
    }))


class _Inspected:
    """All pictures at one strength: what was found, and how good the pictures were."""

    def __init__(self, pictures: Sequence[ScoredPicture], qualities: Sequence[Quality]) -> None:
        self.tally, self.qualities = Tally.of(pictures), tuple(qualities)


class _Sweep:
    """The same rows again and again; a picture's own disturbance has the same place at every strength."""

    def __init__(
        self, inspector: Inspector, rows: Sequence[Row], seed: int, steps: int, progress: Progress | None
    ) -> None:
        self._inspector, self._rows, self._seed = inspector, rows, seed
        self._steps, self._progress, self._done = steps * len(rows), progress, 0
        self.two_tone = 0

    def at(self, how: Disturbance) -> _Inspected:
        """Disturb, measure and inspect every row."""
        pictures, qualities, two_tone = [], [], 0
        for index, row in enumerate(self._rows):
            example = row.read()
            rng = np.random.default_rng([self._seed, index])
            frame = example.frame(index + 1)
            two_tone += is_binarised(frame.image)
            frame = replace(frame, image=disturbed(frame.image, how, rng))
            pictures.append(scored_frame(self._inspector, frame, example))
            template = frame.template if self._inspector.recipe.mode == "compare" else None
            qualities.append(picture_quality(frame.image, template))
            self._done += 1
            if self._progress:
                self._progress(self._done, self._steps, "limits")
        if how == Disturbance():
            self.two_tone = two_tone
        return _Inspected(pictures, qualities)


def scored_frame(inspector: Inspector, frame: Frame, example: Example) -> ScoredPicture:
    """What the bundle reports on one frame, beside the truth; a failed answer reports what it has."""
    boxes = boxes_of(inspector.inspect(frame).defects)
    return ScoredPicture(example.truth, counted_boxes(boxes, example.truth, example.ignored))


def _point(strength: float, found: _Inspected, clean: _Inspected, weights: Floats) -> SweepPoint:
    """F and its loss at one strength; the intervals draw pictures, the same ones clean and disturbed."""
    ones = np.ones((1, weights.shape[1]))
    f, f_clean = (one.tally.precision_recall_f(ones)[2][0] for one in (found, clean))
    drawn, drawn_clean = (one.tally.precision_recall_f(weights)[2] for one in (found, clean))
    low, high = percentile_interval(drawn)
    loss_high = float(np.percentile(drawn_clean - drawn, 95.0))
    return SweepPoint(strength, float(f), low, high, float(f_clean - f), loss_high, found.qualities)


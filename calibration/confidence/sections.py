"""The `confidence` section of `judgement.json`, from labelled answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...runtime.judge.confidence import clean_features
from .fit import (
    CLEAN_PRIOR,
    LEAST_LABELS,
    LEAST_PARTS,
    Labelled,
    calibration_report,
    chosen_method,
    fitted,
    fitted_linear,
    rates_report,
)
from .logistic import Floats
from .part_rates import LabelledPart


def confidence_section(
    defects: Sequence[Labelled],
    raw: Floats,
    clean: Sequence[Labelled],
    labelled: int,
    source: str,
    parts: Sequence[LabelledPart] = (),
    threshold: float = 0.85,
) -> dict[str, Any]:
    """`defect`, `clean`: the models, None where there are too few labels; `report`: what they rest on.

    `raw` [n]: confidence of each of `defects` as the detectors say it; `labelled`: parts with labels;
    `source`: where they came from, for the report; `parts`: the labelled ones, for what `threshold` makes of
    them before and after.
    """
    report: dict[str, Any] = {"source": source, "parts": labelled, "labels": len(defects)}
    section: dict[str, Any] = {"defect": None, "clean": None, "report": report}
    if len(defects) < LEAST_LABELS:
        report["defect"] = f"{len(defects)} labelled defects, at least {LEAST_LABELS} are needed"
    else:
        method, losses = chosen_method(defects)
        section["defect"] = fitted(method, defects).to_json()
        report["defect"] = {**calibration_report(defects, raw), "method": method, "log_losses": losses}
    if labelled < LEAST_PARTS:
        report["clean"] = f"{labelled} labelled parts, at least {LEAST_PARTS} are needed"
    else:
        model = fitted_linear(CLEAN_PRIOR, clean, "logistic")
        section["clean"] = model.to_json()
        missed = [one for one in clean if not one.right]
        report["clean"] = {
            "parts": len(clean) - len(missed),
            "missed_defects": len(missed),
            "stated_without_evidence": model.probability(clean_features(0.0)),
        }
    if parts:
        report["rates"] = rates_report(parts, defects, clean, threshold)
    rounded: dict[str, Any] = _rounded(section)
    return rounded


def _rounded(value: Any) -> Any:
    """Floats to six digits behind the point, for reading and for diffs."""
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    return round(value, 6) if isinstance(value, float) else value

"""F per class of two bundles on the same parts, its change and how sure the change is."""

from __future__ import annotations

import pytest

from orinspect.evaluation.gate.scores import f_change
from orinspect.evaluation.inspected import EvaluatedPart
from orinspect.evaluation.scores import NamedBox
from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.infer.inspector import Inspection, Passes

TYPES = ("open", "short", "spur")


def part(truth: list[str], found: list[str | None], extra: str | None = None) -> EvaluatedPart:
    """A part with a true box a type of `truth`; `found` says what was reported there, `extra` elsewhere."""
    places = [(100.0 * i, 0.0, 100.0 * i + 40, 40.0) for i in range(len(truth))]
    boxes = [NamedBox(kind, place) for kind, place in zip(truth, places, strict=True)]
    defects = [
        CandidateDefect(kind, place, 0.9, "both")
        for kind, place in zip(found, places, strict=True)
        if kind is not None
    ]
    if extra is not None:
        defects.append(CandidateDefect(extra, (0.0, 500.0, 40.0, 540.0), 0.5, "words"))
    inspection = Inspection(tuple(defects), (), (), (), {}, Passes(), None)
    return EvaluatedPart("p", "g", tuple(boxes), inspection, 1.0)


def test_the_change_is_that_of_all_parts_and_of_each_class() -> None:
    exact = [part(["open", "short"], ["open", "short"]), part(["open", "open"], ["open", None])]
    int8 = [part(["open", "short"], ["open", "open"]), part(["open", "open"], ["open", None], "short")]
    change = f_change(exact, int8, TYPES)
    assert change is not None
    assert change.f_float == pytest.approx(2 * 3 / (3 + 4))
    assert change.f_int8 == pytest.approx(2 * 2 / (4 + 4))
    assert change.change == pytest.approx(change.f_int8 - change.f_float)
    assert change.interval[0] <= change.change <= change.interval[1]
    assert change.defects == 4
    assert change.resolution == pytest.approx(2 / 7)
    assert change.per_class["short"].f_float == 1.0
    assert change.per_class["short"].f_int8 == 0.0
    assert change.per_class["short"].change == -1.0
    assert change.per_class["spur"].f_float is None and change.per_class["spur"].change is None


def test_equal_reports_have_no_change_in_any_draw() -> None:
    parts = [part(["open"], ["open"]), part(["short"], [None])]
    change = f_change(parts, parts, TYPES)
    assert change is not None and change.change == 0.0 and change.interval == (0.0, 0.0)


def test_parts_without_truth_have_no_f() -> None:
    assert f_change([part([], [], "open")], [part([], [])], TYPES) is None
    assert f_change([], [], TYPES) is None

"""Errors of measured sizes by hand."""

import pytest

from orinspect.evaluation.rates.size_error import MeasuredSize, size_error_figures


def test_errors_bias_and_how_many_lie_inside_their_uncertainty() -> None:
    rows = [MeasuredSize("length", "scratch", 1.0, 1.0 + error, 0.05) for error in (0.01, -0.02, 0.03, 0.1)]
    rows += [MeasuredSize("length", "dent", 2.0, None), MeasuredSize("area", "dent", 1.0, 0.9)]
    table = size_error_figures(rows)
    assert table is not None and list(table) == ["length", "area"]
    length = table["length"]
    assert (length["n"], length["unmeasured"], length["unit"]) == (4, 1, "mm")
    assert length["median"] == pytest.approx(0.025) and length["bias"] == pytest.approx(0.03)
    assert 0.03 < length["p95"] <= 0.1
    assert length["inside"]["rate"] == 0.75 and length["inside"]["low"] < 0.75 < length["inside"]["high"]
    assert length["per_type"]["dent"] == {"n": 0, "unmeasured": 1, "median": None, "p95": None, "bias": None,
                                          "inside": None}
    assert table["area"]["inside"] is None and table["area"]["bias"] == pytest.approx(-0.1)


def test_without_known_sizes_nothing_is_said() -> None:
    assert size_error_figures([]) is None

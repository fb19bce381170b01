"""The stated uncertainty of `calibrate scale`, held against renders with a known truth (synthetic only)."""

from __future__ import annotations

import json

import pytest

from orinspect.examples.scale.measure import main, measured_row


def test_one_draw_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--draws", "1", "--way", "fiducials", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["way"], row["draws"], row["refused"]) == ("fiducials", 1, 0)
    assert row["centre_ppm"] < 500


@pytest.mark.slow
@pytest.mark.parametrize("way", ["diameter", "fiducials", "checkerboard"])
def test_the_stated_uncertainty_covers_its_share(way: str) -> None:
    """k = 2 covers 95 % of normal errors, and up to all of those with a known bound (a tolerance).

    With 60 draws the exact binomial limits of 95 % are 88 % and 100 %; docs/scale.md has more draws. Too
    generous is wrong as well: the stated uncertainty may be twice the errors at most.
    """
    row = measured_row(way, 60, 11)
    table = row.table()
    assert row.refused <= 2
    assert float(table["length_coverage"]) >= 0.88, table
    assert float(table["length_stated_ppm"]) < 2 * float(table["length_ppm"]), table

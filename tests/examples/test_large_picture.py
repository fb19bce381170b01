"""The measurement of large pictures on small ones, and its fit on planted figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect.examples.large_picture.measure import linear_fit, main, measure, size_from_text, table_text
from orinspect.examples.large_picture.scenes import panel, surface
from orinspect.tests.small_bundle import write_small_bundle

pytestmark = pytest.mark.slow


def row(width: int, height: int, tiles: int, cpu_ms: float | None) -> dict[str, Any]:
    return {"width": width, "height": height, "tiles_looked": tiles, "cpu_ms": cpu_ms}


def test_the_fit_finds_what_was_planted() -> None:
    rows = [
        row(1000 * n, 1000, tiles, 20.0 + 3.0 * tiles + 15.0 * n)
        for n, tiles in ((1, 5), (1, 60), (2, 10), (4, 200), (8, 30), (12, 400))
    ]
    fit = linear_fit(rows, "cpu_ms")
    assert fit is not None
    assert (fit["start"], fit["a_tile"], fit["a_megapixel"]) == pytest.approx((20.0, 3.0, 15.0))
    assert fit["residual"] < 1e-6
    grid = [row(1000 * n, 1000, 300 * n, 20.0 + 3.0 * 300 * n) for n in (1, 2, 4, 8, 12)]
    fit = linear_fit(grid, "cpu_ms")  # tiles are so many a megapixel: only one of the two can be told
    assert fit is not None
    assert (fit["start"], fit["a_tile"], fit["a_megapixel"]) == pytest.approx((20.0, 3.0, 0.0))
    bent = [row(1000 * n, 1000, 300 * n, 0.01 * (300.0 * n) ** 2) for n in (1, 2, 4, 8, 12)]
    fit = linear_fit(bent, "cpu_ms")
    assert fit is not None and fit["residual"] > 0.1, "what grows with the square must not look linear"
    assert linear_fit(grid[:2], "cpu_ms") is None
    assert linear_fit([row(1, 1, 1, None)] * 5, "cpu_ms") is None


def test_pictures_of_any_size_are_made_of_scenes() -> None:
    frame = panel(1000, 700, defects=1)
    assert frame.template is not None and frame.image.shape == frame.template.shape == (700, 1000)
    assert not np.array_equal(frame.image, frame.template)
    assert (frame.image[:640, 640:] == panel(1400, 640, defects=1).image[:, 640:1000]).all()
    assert surface(600, 520, defects=1).image.shape == (520, 600, 3)
    assert size_from_text("4000x3000") == (4000, 3000)
    for text in ("4000", "0x3", "ax3"):
        with pytest.raises(ValueError, match=r"size|invalid"):
            size_from_text(text)


@pytest.mark.slow  # a process a picture
def test_every_picture_is_measured_in_its_own_process(tmp_path: Path) -> None:
    write_small_bundle(tmp_path)
    result = measure(tmp_path / "bundle", [(512, 512), (640, 300)], defects=(12,), rounds=1, threads=1)
    assert [(row["width"], row["height"]) for row in result["rows"]] == [(512, 512), (640, 300)]
    for found in result["rows"]:
        assert found["cpu_ms"] > 0 and found["wall_ms"] > 0 and found["tiles"] >= found["tiles_looked"] > 0
    assert "640 x 300" in table_text(result)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "--sizes", "640x480"]) == 1
    assert "none: no such folder" in capsys.readouterr().err

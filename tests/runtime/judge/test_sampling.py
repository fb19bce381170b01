"""ISO 2859-1: the table against printed cells, and a draw that a restart does not repeat."""

from __future__ import annotations

import json
import math

import pytest

from orinspect.runtime.errors import RecipeError
from orinspect.runtime.judge.sampling import TABLE, is_sampled, sample_size


@pytest.mark.parametrize(
    ("lot", "level", "size"),
    [
        # read off Table 1 and Table 2-A, both sides of a limit
        (8, "I", 2), (8, "II", 2), (8, "III", 3),
        (9, "II", 3), (25, "II", 5), (26, "II", 8),
        (90, "II", 13), (91, "II", 20), (150, "III", 32),
        (151, "I", 13), (280, "II", 32), (281, "II", 50),
        (500, "III", 80), (501, "II", 80), (1200, "I", 32),
        (1201, "II", 125), (3200, "III", 200), (3201, "II", 200),
        (10_000, "II", 200), (10_001, "II", 315), (35_000, "I", 125),
        (35_001, "II", 500), (150_000, "III", 800), (150_001, "II", 800),
        (500_000, "II", 800), (500_001, "II", 1250), (500_001, "III", 2000),
        (1200, "S-1", 5), (1200, "S-2", 5), (1200, "S-3", 13), (1200, "S-4", 20),
        (500_001, "S-4", 125), (500_001, "S-3", 50), (50, "S-2", 3),
        (2, "III", 2),  # never more than the lot
    ],
)  # fmt: skip
def test_sample_sizes_are_those_of_the_standard(lot: int, level: str, size: int) -> None:
    assert sample_size(lot, level) == size


def test_the_table_is_whole_and_rises() -> None:
    table = json.loads(TABLE.read_text("utf-8"))
    order = list(table["sample_size"])
    sizes = list(table["sample_size"].values())
    assert sizes == sorted(sizes)
    assert "I" not in order and "O" not in order  # letters that read as numbers are left out
    for level, letters in table["levels"].items():
        assert len(letters) == len(table["lot_size_to"]), level
        ranks = [order.index(letter) for letter in letters]
        assert ranks == sorted(ranks), level
    assert table["source"] and table["date"]


def test_the_same_part_is_drawn_again_and_again_or_never() -> None:
    drawn = [is_sampled(f"part-{n}", "lot-7", lot_size=500) for n in range(500)]
    assert drawn == [is_sampled(f"part-{n}", "lot-7", lot_size=500) for n in range(500)]
    assert drawn != [is_sampled(f"part-{n}", "lot-8", lot_size=500) for n in range(500)]


def test_a_lot_yields_about_its_sample_size() -> None:
    """Independent draws: 50 of 500 with a standard deviation of 6.7; 40 lots with one of 0.7 around 50."""
    counts = [sum(is_sampled(f"{n}", f"lot-{lot}", lot_size=500) for n in range(500)) for lot in range(40)]
    share = 50 / 500
    deviation = math.sqrt(500 * share * (1 - share))
    assert abs(sum(counts) / 40 - 50) < 4 * deviation / math.sqrt(40)
    assert max(abs(count - 50) for count in counts) < 4.5 * deviation


def test_a_lot_as_small_as_its_sample_is_seen_whole() -> None:
    assert all(is_sampled(f"{n}", None, lot_size=2) for n in range(20))


@pytest.mark.parametrize(("lot", "level", "named"), [(1, "II", "lot size is 1"), (500, "IV", "'IV'")])
def test_what_the_standard_does_not_know_is_refused(lot: int, level: str, named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        sample_size(lot, level)

"""An outbox without room counts parts, and no sequence falls between what is counted and what comes after."""

from __future__ import annotations

from pathlib import Path

import pytest

from orinspect.runtime.deliver.outbox import Bounds, Outbox, OutboxFullError


def test_the_sequence_after_a_full_outbox_is_the_next_one(tmp_path: Path) -> None:
    with Outbox(
        tmp_path / "o.sqlite", bounds=Bounds(most_rows=4, least_free_bytes=0, reserve_bytes=0)
    ) as outbox:
        for number in range(1, 5):
            assert outbox.accept(f"r{number}", "boot", "cam", number, "{}") == number
            outbox.commit(f"r{number}", "{}")
        for number in range(5, 8):
            with pytest.raises(OutboxFullError):
                outbox.accept(f"r{number}", "boot", "cam", number, "{}")
        outbox.mark_published("r1", "r2")
        assert outbox.accept("r8", "boot", "cam", 8, "{}") == 8
        assert [(gap.first, gap.last) for gap in outbox.gaps()] == [(5, 7)]
    with Outbox(tmp_path / "o.sqlite") as outbox:
        assert outbox.accept("r9", "boot", "cam", 9, "{}") == 9

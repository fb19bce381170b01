"""Result ids against RFC 9562, and what happens while the clock is wrong."""

from __future__ import annotations

import os
import uuid

from orinspect.runtime.uuid7 import result_id_from, uuid7_from


def test_the_example_of_rfc_9562_appendix_a6() -> None:
    """The RFC's fields: unix_ts_ms 0x017F22E279B0, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F."""
    nanoseconds = 0x017F22E279B0 * 1_000_000 + -(-0xCC3 * 1_000_000 // 4096)
    tail = 0x18C4DC0C0C07398F.to_bytes(8, "big")
    assert str(uuid7_from(nanoseconds, tail)) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_ids_sort_by_time_within_a_millisecond() -> None:
    ids = [str(uuid7_from(1_767_225_600_000_000_000 + step * 1_000, os.urandom(8))) for step in range(1000)]
    assert ids == sorted(ids)


def test_version_4_while_the_clock_is_not_synchronised() -> None:
    assert uuid.UUID(result_id_from(1767225600.0, True, os.urandom)).version == 7
    blind = uuid.UUID(result_id_from(1767225600.0, False, os.urandom))
    assert (blind.version, blind.variant) == (4, uuid.RFC_4122)


def test_ids_of_one_instant_differ() -> None:
    for synchronised in (True, False):
        assert len({result_id_from(1.0, synchronised, os.urandom) for _ in range(1000)}) == 1000

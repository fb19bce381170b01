"""Result ids: UUIDv7 (RFC 9562 section 5.7) while the clock can be trusted, UUIDv4 while it cannot.

A version 7 id sorts by its time. An id with a time that is wrong by years would sort wrongly for ever, so
without a synchronised clock the id carries no time at all.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable


def uuid7_from(unix_ns: int, random: bytes) -> uuid.UUID:
    """Version 7: 48 bits of Unix milliseconds, 12 bits of the millisecond's fraction (RFC 9562 section 6.2,
    method 3), 62 random bits from the first 8 bytes of `random`."""
    milliseconds, rest_ns = divmod(unix_ns, 1_000_000)
    fraction = rest_ns * 4096 // 1_000_000
    tail = int.from_bytes(random[:8], "big") & (2**62 - 1)
    return uuid.UUID(int=(milliseconds & (2**48 - 1)) << 80 | 7 << 76 | fraction << 64 | 2 << 62 | tail)


def result_id_from(unix_s: float, synchronised: bool, random: Callable[[int], bytes]) -> str:
    """A new result id; `random(n)` gives n random bytes, for example `os.urandom`."""
    if synchronised:
        return str(uuid7_from(int(unix_s * 1e9), random(8)))
    return str(uuid.UUID(bytes=random(16), version=4))

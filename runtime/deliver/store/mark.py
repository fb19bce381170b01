"""A few bytes beside the outbox that know how far it was: the last sequence and the last transaction.

They are written after each commit and never forced to the disk. A killed process loses nothing of them; a
power cut may, and then the boot is over, too. So an outbox that is behind its mark has lost transactions
that SQLite does not miss (a damaged write-ahead log is cut off without a word), and sequences beyond the mark
were never given out in this boot. The mark can be behind the outbox, never before it.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

_SIZE = 256  # within one page of the kernel: a killed writer leaves the old bytes or the new ones


@dataclass(frozen=True)
class Mark:
    """`last` is the last sequence of boot `boot_id`, `transactions` the count in the outbox's ledger."""

    schema: int
    boot_id: str
    last: int
    transactions: int


class MarkFile:
    """The file at `path`. A disk that refuses costs the protection, never the outbox."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def read(self) -> Mark | None:
        """The mark; None when there is none or a power cut tore it."""
        try:
            body, _, digest = self._path.read_bytes().rstrip().rpartition(b" ")
            if zlib.crc32(body) != int(digest):
                return None
            return Mark(**json.loads(body))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, mark: Mark) -> None:
        """Replace the mark."""
        body = json.dumps(asdict(mark)).encode()
        line = body + b" %d" % zlib.crc32(body)
        with contextlib.suppress(OSError):
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
            os.pwrite(self._file, line.ljust(_SIZE - 1) + b"\n", 0)

    def close(self) -> None:
        """Close the file; twice is fine."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

"""Rows of a damaged outbox, read from its pages without SQLite's help.

Every page of the file and of its write-ahead log that looks like a leaf of a table is read cell by cell, and
a row is taken only when it has the form of a result and its digest is right (a report of version 1 has none:
it must be JSON). It does not matter which page is damaged: header, root or index. Old copies of a row may
come too, in any order; what to do with them is the caller's affair. The format: https://sqlite.org/fileformat2.html
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = 4096  # SQLite's default since 2016; the header that would tell may be what is damaged
_LEAF = 0x0D
_WAL_HEADER, _FRAME_HEADER = 32, 24
_LONGEST_ROW = 64 * 1024 * 1024
_COLUMNS = (9, 13)  # of version 1, and with those that version 2 added
_STATES = ("accepted", "committed", "published", "acknowledged")

Reader = Callable[[int], bytes]  # page number -> page; empty when there is none


@dataclass(frozen=True)
class CarvedRow:
    """One readable row of `result`; `payload` is None for a part that was only accepted."""

    result_id: str
    boot_id: str
    sequence: int
    source: str
    source_sequence: int
    state: str
    trigger: str
    payload: str | None
    digest: int | None
    due: int | None


@dataclass(frozen=True)
class CarvedKey:
    """One readable row of `capture`."""

    source: str
    key: str


def digest_of(
    result_id: str, boot_id: str, sequence: int, source: str, source_sequence: int, payload: str
) -> int:
    """CRC-32 of what must never change once a report is written."""
    return zlib.crc32(
        "\0".join((result_id, boot_id, str(sequence), source, str(source_sequence), payload)).encode()
    )


def is_whole(
    result_id: str,
    boot_id: str,
    sequence: int,
    source: str,
    source_sequence: int,
    payload: str,
    digest: int | None,
) -> bool:
    """False for a report with a wrong byte in it. Version 1 wrote no digest: there it must be JSON, and the
    id in it the row's."""
    if digest is not None:
        return digest == digest_of(result_id, boot_id, sequence, source, source_sequence, payload)
    try:
        report = json.loads(payload)
    except (ValueError, RecursionError):
        return False
    is_other = isinstance(report, dict) and report.get("result_id", result_id) != result_id
    return "\ufffd" not in payload and not is_other


def rows_in(path: Path) -> Iterator[CarvedRow | CarvedKey]:
    """Every readable row of the file at `path` and of `<path>-wal`, old copies too; memory stays flat."""
    with _opened(path) as database, _opened(Path(f"{path}-wal")) as log:
        latest: dict[int, int] = {}  # page number -> where its last frame stands in the log
        for at in range(_WAL_HEADER + _FRAME_HEADER, _size(log), PAGE + _FRAME_HEADER):
            latest[int.from_bytes(_read(log, at - _FRAME_HEADER, 4), "big")] = at

        def old(number: int) -> bytes:
            return _read(database, (number - 1) * PAGE, PAGE)

        def new(number: int) -> bytes:
            return _read(log, latest[number], PAGE) if number in latest else old(number)

        for number in range(1, -(-_size(database) // PAGE) + 1):
            yield from _rows_of_page(old(number), 100 if number == 1 else 0, (old, new))
        for at in range(_WAL_HEADER + _FRAME_HEADER, _size(log), PAGE + _FRAME_HEADER):
            yield from _rows_of_page(_read(log, at, PAGE), 0, (new, old))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """A file descriptor; None when there is no such file."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def _size(file: int | None) -> int:
    return 0 if file is None else os.fstat(file).st_size


def _read(file: int | None, at: int, count: int) -> bytes:
    """Bytes of a file; none where the disk cannot read them."""
    if file is None or at < 0:
        return b""
    try:
        return os.pread(file, count, at)
    except OSError:
        return b""


def _rows_of_page(page: bytes, start: int, readers: tuple[Reader, ...]) -> Iterator[CarvedRow | CarvedKey]:
    """The rows whose cells stand in this page; nothing when it is no leaf of a table."""
    if len(page) < PAGE or page[start] != _LEAF:
        return
    cells = int.from_bytes(page[start + 3 : start + 5], "big")
    for index in range(min(cells, (PAGE - 8) // 2)):
        pointer = start + 8 + 2 * index
        at = int.from_bytes(page[pointer : pointer + 2], "big")
        for reader in readers:
            try:
                row = _row_from_record(_record_at(page, at, reader))
            except (IndexError, ValueError, OverflowError, RecursionError):
                row = None
            if row is not None:
                yield row
                break


def _record_at(page: bytes, at: int, reader: Reader) -> bytes:
    """The payload of a cell, with what stands on overflow pages."""
    size, at = _varint(page, at)
    _, at = _varint(page, at)
    if not 0 < size <= _LONGEST_ROW:
        raise ValueError
    most = PAGE - 35
    local = size
    if size > most:
        least = (PAGE - 12) * 32 // 255 - 23
        spill = least + (size - least) % (PAGE - 4)
        local = spill if spill <= most else least
    record = bytearray(page[at : at + local])
    following = int.from_bytes(page[at + local : at + local + 4], "big") if size > local else 0
    while len(record) < size:
        overflow = reader(following) if following else b""
        if len(overflow) < PAGE:
            raise ValueError
        record += overflow[4 : 4 + min(PAGE - 4, size - len(record))]
        following = int.from_bytes(overflow[:4], "big")
    return bytes(record)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        byte = data[at + index]
        if index == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at + index + 1
    raise ValueError


def _values(record: bytes) -> list[object]:
    """The columns of a record."""
    end, at = _varint(record, 0)
    body, values = end, list[object]()
    while at < end:
        kind, at = _varint(record, at)
        if kind in (0, 8, 9):
            values.append((None, 0, 1)[(0, 8, 9).index(kind)])
        elif kind <= 6:
            width = (0, 1, 2, 3, 4, 6, 8)[kind]
            values.append(int.from_bytes(record[body : body + width], "big", signed=True))
            body += width
        elif kind >= 13 and kind % 2:
            width = (kind - 13) // 2
            if body + width > len(record):
                raise ValueError
            values.append(record[body : body + width].decode("utf-8"))
            body += width
        else:
            raise ValueError  # a number with a fraction or a blob: no column of ours
    return values


def _row_from_record(record: bytes) -> CarvedRow | CarvedKey | None:
    """A row, when the record has its form and its digest is right."""
    values = _values(record)
    if len(values) == 3 and values[0] is None:
        _, source, key = values
        return CarvedKey(source, key) if isinstance(source, str) and isinstance(key, str) else None
    if len(values) not in _COLUMNS:
        return None
    digest, _, _, due = values[9:] if len(values) == _COLUMNS[1] else (None, None, 0, None)
    _, result_id, boot_id, sequence, source, source_sequence, state, trigger, payload = values[:9]
    texts, whole = (result_id, boot_id, source, trigger), (sequence, source_sequence)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for n in whole):
        return None
    if not result_id or not boot_id or state not in _STATES or (payload is None) != (state == "accepted"):
        return None
    row = CarvedRow(
        str(result_id), str(boot_id), int(str(sequence)), str(source), int(str(source_sequence)), str(state),
        str(trigger), None if payload is None else str(payload), digest if isinstance(digest, int) else None,
        due if isinstance(due, int) else None,
    )  # fmt: skip
    if row.sequence < 1 or row.payload is None:
        return row if row.sequence >= 1 else None
    known = (row.result_id, row.boot_id, row.sequence, row.source, row.source_sequence, row.payload)
    return row if is_whole(*known, row.digest) else None

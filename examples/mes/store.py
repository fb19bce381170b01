"""Messages into rows: each result once, copies counted, contradictions and invalid messages kept apart."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .contract import Contract, InvalidError, content_of
from .database import Database, RefusedError

NEW, COPY, CONTRADICTION, INVALID = "new", "copy", "contradiction", "invalid"
RESULT_COLUMNS = (
    *("result_id", "station", "device_id", "boot_id", "sequence", "root_result_id", "revision", "supersedes"),
    *("captured_at", "part_id", "product_id", "job_id", "lot", "recipe_id", "result_state", "reason_code"),
    *("result_evaluation", "disposition", "is_simulated", "payload", "content", "received_at", "received"),
)
RANGE_COLUMNS = (
    *("result_id", "station", "boot_id", "sequence", "missed_boot_id", "first_sequence", "last_sequence"),
    *("reason_code", "payload", "content", "received_at", "received"),
)


@dataclass(frozen=True)
class Message:
    """One message on `result`: its topic, bytes, and when it came (RFC 3339, UTC)."""

    topic: str
    payload: bytes
    received_at: str


@dataclass(frozen=True)
class Stored:
    """What became of a message; `table` is the report, None for an invalid one, and `why` says why."""

    outcome: str
    table: dict[str, Any] | None = None
    why: str = ""


class Store:
    """Writes messages and remembers which results are still to be acknowledged to their station."""

    def __init__(self, database: Database, contract: Contract) -> None:
        self._database, self._contract = database, contract

    def take(self, messages: Sequence[Message]) -> list[Stored]:
        """Write all of them in one transaction; once this returns they are on the disk.

        DownError: none of them is. A value that the database refuses sends its own message to quarantine.
        """
        try:
            with self._database.transaction():
                return [self._take(message) for message in messages]
        except RefusedError as error:
            if len(messages) > 1:
                return [stored for message in messages for stored in self.take([message])]
            with self._database.transaction():
                return [self._quarantine(messages[0], f"the database refuses it: {error}")]

    def unacknowledged(self, most: int) -> dict[str, list[str]]:
        """Stored results whose ack no broker has confirmed, by station, at most `most`."""
        rows: dict[str, list[str]] = {}
        for table in ("result", "not_inspected"):
            for station, result_id in self._database.execute(
                f"SELECT station, result_id FROM {table} WHERE acked_at IS NULL LIMIT ?", [most]
            ):
                rows.setdefault(station, []).append(result_id)
        return {station: ids[:most] for station, ids in rows.items()}

    def mark_acknowledged(self, result_ids: Sequence[str], acked_at: str) -> None:
        """The broker has our ack for these."""
        with self._database.transaction():
            for table in ("result", "not_inspected"):
                for result_id in result_ids:
                    self._database.execute(
                        f"UPDATE {table} SET acked_at = ? WHERE result_id = ?", [acked_at, result_id]
                    )

    def payloads(self, *, copies: bool = False) -> Iterator[str]:
        """Every stored report as received, in the order of each station's boots and sequences; `copies`: as
        often as it came."""
        rows = self._database.execute(
            "SELECT payload, received FROM result JOIN"
            " (SELECT station AS s, boot_id AS b, MIN(received_at) AS since FROM result GROUP BY 1, 2) AS o"
            " ON s = station AND b = boot_id ORDER BY station, since, boot_id, sequence, revision"
        )
        for payload, received in rows:
            yield from [payload] * (received if copies else 1)

    def _take(self, message: Message) -> Stored:
        try:
            table = self._contract.checked(message.payload)
        except InvalidError as error:
            return self._quarantine(message, str(error))
        row = {
            **table,
            "station": message.topic.rpartition("/")[0],
            "payload": message.payload.decode(),
            "content": content_of(table),
            "received_at": message.received_at,
            "received": 1,
        }
        if missed := table.get("missed"):
            if missed["first_sequence"] > missed["last_sequence"]:
                return self._quarantine(message, "first_sequence is behind last_sequence")
            row |= {"missed_boot_id": missed["boot_id"]}
            row |= {name: missed[name] for name in ("first_sequence", "last_sequence")}
            return self._write("not_inspected", RANGE_COLUMNS, row, table)
        row["recipe_id"] = table["recipe"]["id"]
        row.update((name, table["part"][name]) for name in ("part_id", "product_id", "job_id", "lot"))
        return self._write("result", RESULT_COLUMNS, row, table)

    def _write(self, into: str, columns: Sequence[str], row: dict[str, Any], table: dict[str, Any]) -> Stored:
        """Insert, or count the copy, or keep the contradiction; what is stored is never overwritten."""
        if self._insert(into, columns, row, "result_id"):
            return Stored(NEW, table)
        same = [row["result_id"], row["content"]]
        # Sent again, so the station has not seen our ack: it must go out once more.
        if self._database.execute(
            f"UPDATE {into} SET received = received + 1, acked_at = NULL WHERE result_id = ? AND content = ?"
            " RETURNING 1",
            same,
        ):
            return Stored(COPY, table)
        kept = ("result_id", "content", "station", "payload", "received_at", "received")
        if not self._insert("contradiction", kept, row, "result_id, content"):
            self._database.execute(
                "UPDATE contradiction SET received = received + 1 WHERE result_id = ? AND content = ?", same
            )
        # The station is answered all the same: it can do nothing about it, and both contents are kept here.
        self._database.execute(f"UPDATE {into} SET acked_at = NULL WHERE result_id = ?", same[:1])
        return Stored(CONTRADICTION, table, f"{row['result_id']} came with two contents; the first counts")

    def _quarantine(self, message: Message, reason: str) -> Stored:
        row: dict[str, Any] = {
            "content": hashlib.sha256(message.topic.encode() + b"\0" + message.payload).hexdigest(),
            "topic": message.topic,
            "payload": message.payload,
            "reason": reason.encode("utf-8", "replace").decode().replace("\0", "?"),
            "received_at": message.received_at,
            "received": 1,
        }
        if not self._insert("quarantine", tuple(row), row, "content"):
            self._database.execute(
                "UPDATE quarantine SET received = received + 1 WHERE content = ?", [row["content"]]
            )
        return Stored(INVALID, None, row["reason"])

    def _insert(self, into: str, columns: Sequence[str], row: dict[str, Any], key: str) -> bool:
        """False when the key is there already."""
        marks = ", ".join("?" * len(columns))
        return bool(
            self._database.execute(
                f"INSERT INTO {into} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT ({key}) DO NOTHING"
                " RETURNING 1",
                [row[name] for name in columns],
            )
        )


def summary(stored: Sequence[Stored]) -> dict[str, int]:
    """How many messages had each outcome."""
    return dict(Counter(entry.outcome for entry in stored))

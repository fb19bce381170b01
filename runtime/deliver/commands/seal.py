"""Who may command: the allow list, the shared secret, the window of time, and what was seen before.

The broker's ACL is the first line: only whoever may publish on `<root>/cmd/#` gets here at all. A shared
secret is the second, for sites whose broker is not theirs alone: all but the listed commands then carry
    signature = hex(HMAC-SHA256(secret, topic + "\\n" + canonical))
where canonical is the payload without `signature` as JSON with sorted keys, no spaces, ASCII only. The topic
is in it so that what was signed for one station is worth nothing at another.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config import CommandsConfig
from ...errors import ConfigError, DeliveryError
from .request import RefusedCommand, Request

LEAST_SECRET_BYTES = 16

log = logging.getLogger(__name__)


def signature_of(topic: str, table: Mapping[str, Any], secret: bytes) -> str:
    """The signature of a payload's table on a topic."""
    rest = {key: value for key, value in table.items() if key != "signature"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hmac.new(secret, f"{topic}\n{canonical}".encode(), hashlib.sha256).hexdigest()


def secret_from_file(path: Path) -> bytes:
    """The first line of `commands.secret_file`; ConfigError when it is unreadable or too short."""
    try:
        secret = path.read_bytes().split(b"\n", 1)[0].strip()
    except OSError as error:
        raise ConfigError(f"commands.secret_file: {path} cannot be read ({error.strerror})") from error
    if len(secret) < LEAST_SECRET_BYTES:
        raise ConfigError(
            f"commands.secret_file: {path} holds {len(secret)} bytes; give at least {LEAST_SECRET_BYTES}"
            " random ones, for instance of `openssl rand -hex 32`"
        )
    return secret


class SeenCommands:
    """The ids of commands inside the window, on disk before a command is obeyed.

    One line `<unix seconds> <id>` each, appended and synced; lines that left the window are dropped when the
    file is read or has grown. A torn last line is ignored: its command was never obeyed.
    """

    def __init__(self, path: Path, window_s: float) -> None:
        """DeliveryError when the file cannot be read or written."""
        self._path, self._window_s = path, window_s
        self._seen: dict[str, float] = {}
        self.newest = 0.0
        """The latest `issued_at` that was ever obeyed, as far as the file knows."""
        for line in self._read_lines():
            moment, _, command_id = line.partition(" ")
            try:
                self._note(command_id, float(moment))
            except ValueError:
                log.warning("%s: a line that is none was left out: %r", path, line[:80])
        self._lines = len(self._seen)
        self._most_lines = 2 * self._lines + 100

    def __contains__(self, command_id: str) -> bool:
        return command_id in self._seen

    def remember(self, command_id: str, issued_at: float) -> None:
        """On disk when this returns."""
        self._append(f"{issued_at!r} {command_id}\n")
        self._note(command_id, issued_at)
        self._lines += 1
        if self._lines > self._most_lines:
            self._forget_old()

    def _note(self, command_id: str, issued_at: float) -> None:
        self._seen[command_id] = issued_at
        self.newest = max(self.newest, issued_at)

    def _forget_old(self) -> None:
        """Write the file anew without what is out of any window, twice its length for a clock that is set."""
        oldest = self.newest - 2 * self._window_s
        self._seen = {name: moment for name, moment in self._seen.items() if moment >= oldest}
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            with fresh.open("w", encoding="ascii") as file:
                file.writelines(f"{moment!r} {name}\n" for name, moment in self._seen.items())
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self._path)
        except OSError as error:
            raise DeliveryError(f"{self._path} cannot be written: {error.strerror}") from error
        self._lines = len(self._seen)
        self._most_lines = 2 * self._lines + 100

    def _append(self, line: str) -> None:
        try:
            with self._path.open("a", encoding="ascii") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DeliveryError(f"{self._path} cannot be written: {error.strerror}") from error

    def _read_lines(self) -> list[str]:
        try:
            content = self._path.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DeliveryError(f"{self._path} cannot be read: {error.strerror}") from error
        whole, _, torn = content.rpartition("\n")
        if torn:  # end it, so that the next line is one
            self._append("\n")
        return [line for line in whole.split("\n") if line]


class Seal:
    """Judges whether a command may be obeyed; remembers those that were."""

    def __init__(self, config: CommandsConfig, seen: SeenCommands) -> None:
        """ConfigError when the secret cannot be read."""
        self._config, self._seen = config, seen
        self._secret = None if config.secret_file is None else secret_from_file(config.secret_file)

    def check(self, request: Request, topic: str, *, unix_s: float, is_synchronised: bool) -> None:
        """RefusedCommand unless it may be obeyed now; it is remembered, and refused when it comes again."""
        name, command_id = request.name, request.id
        if name not in self._config.allow:
            raise RefusedCommand("not_allowed", f"commands.allow does not name {name}", command_id)
        if self._secret is not None and name not in self._config.unsigned:
            given = str(request.table.get("signature") or "")
            wanted = signature_of(topic, request.table, self._secret)
            if not hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
                raise RefusedCommand("bad_signature", "the signature does not fit this command", command_id)
        # A clock that nobody set may lie years back: what was obeyed last is later then, and the future open.
        reference = unix_s if is_synchronised else max(unix_s, self._seen.newest)
        off, window = request.issued_at - reference, self._config.window_s
        if off < -window or (is_synchronised and off > window):
            clock = "time" if is_synchronised else "time, which nobody has set"
            raise RefusedCommand(
                "stale",
                f"issued_at is {off:+.0f} s off the station's {clock}; allowed are {window:g}",
                command_id,
            )
        if command_id in self._seen:
            raise RefusedCommand("replayed", "a command with this id came before", command_id)
        self._seen.remember(command_id, request.issued_at)

"""One run of tests/line_child.py: the service as a process of its own, led step by step."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from orinspect.tests.brokers import WAIT_S

ROOT = "plant/line"
SOURCE = "scenes:pcb?seed=3&parts=6&size_px=128&style=grey"


class Line:
    """The process, killed at the end; a context manager.

    `says`: what the inspector says about every part, or `real` for the engines of a bundle; `tables`: more of
    service.json, table by table; `mqtt`: keys of its table.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        says: str = "pass",
        source: str = "",
        scale: Path | None = None,
        tables: Mapping[str, Mapping[str, Any]] | None = None,
        **mqtt: Any,
    ) -> None:
        given: dict[str, dict[str, Any]] = {
            "device": {"device_id": "d", "station_id": "s"},
            "camera": {"source": source or SOURCE},
            "inspection": {"bundle": "none"},
            "mqtt": {
                "host": "127.0.0.1",
                "port": port,
                "root": ROOT,
                "protocol": "3.1.1",
                "retry_least_s": 0.05,
                "retry_most_s": 0.2,
                **mqtt,
            },
            "outbox": {"path": "outbox.sqlite", "drain_timeout_s": 2.0},
            **({} if scale is None else {"scale": {"file": str(scale)}}),
        }
        for name, table in (tables or {}).items():
            given[name] = {**given.get(name, {}), **table}
        config = folder / "service.json"
        config.write_text(json.dumps(given))
        self.errors = folder / "errors.txt"
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orinspect.tests.line_child", str(config), says],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin: IO[str] = self.process.stdin
        self._stdout: IO[str] = self.process.stdout

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def inspecting(self) -> str:
        """Wait until the next part is being inspected; its id."""
        line = self._stdout.readline()
        assert line.startswith("inspecting "), f"{line!r}; {self.errors.read_text()}"
        return line.split()[1]

    def go(self) -> None:
        """Let the part under way finish."""
        self._stdin.write("\n")
        self._stdin.flush()

    def run_free(self) -> None:
        """Let every part finish from now on."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()

    def finish(self) -> int:
        """Let everything finish; the exit code."""
        self.run_free()
        self._stdout.read()
        return self.process.wait(WAIT_S)

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.finish()

"""A camera that does what a list says; the capture process imports this module by its name."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from orinspect.runtime.capture.frame import Camera, Frame


class PlannedCamera:
    """A camera for a test: `source` is a comma list of frame sizes, `stuck`, `fail` or `die`."""

    def __init__(self, source: str) -> None:
        self._plan = source.split(",")

    def __enter__(self) -> PlannedCamera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        pass

    def frames(self) -> Iterator[Frame]:
        for number, step in enumerate(self._plan, 1):
            if step == "stuck":
                signal.pause()
            elif step == "fail":
                raise RuntimeError("the driver is upset")
            elif step == "die":
                os.kill(os.getpid(), signal.SIGSEGV)
            else:
                image = np.full((int(step), 8, 3), number, np.uint8)
                yield Frame(image, None, number, 1.0, 1, "planned")


def planned(source: str) -> Camera:
    """What `ProcessCamera` calls in the child."""
    return PlannedCamera(source)

"""A camera that does what a list says; the capture process imports this module by its name."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from orinspect.runtime.capture.frame import Camera, Frame
from orinspect.runtime.capture.sources import Resume, SourceText


class PlannedCamera:
    """A camera for a test: `plan` lists frame sizes, `stuck`, `fail` or `die`; `live` and the like end it.

    `live` goes on for ever at the pace of a camera, `frozen` too with one picture, and `dark` without light
    until the file `light` is there. Pictures are numbered from
    `first`, and so are their grey levels; `monotonic_ns` is the machine's own clock.
    """

    def __init__(self, plan: list[str], first: int = 1, light: Path | None = None) -> None:
        self._plan, self._first, self._light = plan, first, light

    def __enter__(self) -> PlannedCamera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        pass

    def frames(self) -> Iterator[Frame]:
        for number, step in enumerate(self._plan, self._first):
            if step == "stuck":
                signal.pause()
            elif step == "fail":
                raise RuntimeError("the driver is upset")
            elif step == "die":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif step in ("live", "frozen", "dark"):
                for later in itertools.count(number):
                    time.sleep(0.002)  # between two pictures of the camera
                    if step == "dark" and (self._light is None or not self._light.exists()):
                        yield _frame(4, later, np.random.default_rng(later).integers(0, 8, (4, 8, 3)))
                    else:
                        yield _frame(4, later, 100 if step == "frozen" else 50 + later % 100)
            else:
                yield _frame(int(step), number, number)


def _frame(height: int, number: int, grey: int | npt.NDArray[np.int64]) -> Frame:
    """`grey`: one level, or the levels of a picture without light, whose noise is never twice the same."""
    image = np.full((height, 8, 3), grey, np.uint8)
    return Frame(image, None, number, 1.0, time.monotonic_ns(), "planned", key=f"key{number}")


def planned(source: str, *, resume: Resume) -> Camera:
    """What `ProcessCamera` calls in the child: `source` is the plan, separated by commas."""
    return PlannedCamera(source.split(","))


def opened_as_planned(source: str, *, resume: Resume) -> Camera:
    """The camera of `KIND:FILE`: each opening takes the first line of FILE as its plan.

    What it was told to leave out is added to FILE.openings, a line of JSON each, with the process id. A plan
    numbers its frames on from `resume.after`.
    """
    path = Path(SourceText.of(source).path)
    plan, *rest = path.read_text().splitlines()
    path.write_text("\n".join(rest))
    with Path(f"{path}.openings").open("a") as log:
        log.write(json.dumps([os.getpid(), resume.after, sorted(resume.keys)]) + "\n")
    return PlannedCamera(plan.split(","), resume.after + 1, Path(f"{path}.light"))

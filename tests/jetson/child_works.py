"""What the tests let a child process do. A module of its own: a fresh process imports it by name, and a test
file has none that it could find.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from orinspect.runtime.errors import BundleError


def doubled(tell: Callable[..., None], number: int) -> int:
    tell("working on", number)
    return 2 * number


def refused(tell: Callable[..., None]) -> None:
    raise BundleError("bundle x is broken; copy it again")


def broken(tell: Callable[..., None]) -> None:
    raise RuntimeError("loose end")


def killed(tell: Callable[..., None], number: int) -> None:
    os.kill(os.getpid(), number)


def left(tell: Callable[..., None]) -> None:
    os._exit(3)

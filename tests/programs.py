"""Programs of the system that some tests need and a machine may lack.

`@pytest.mark.requires("mosquitto")` on a test, or `require("mosquitto")` in a test or fixture that learns it
late: where the program is missing the test is skipped and says why, and `pytest -ra` (our default) lists it
under what did not run. Where ORINSPECT_REQUIRE names the program (`mosquitto,postgresql`; `all`), as CI does,
the same test fails instead. A new program is one line in PROBES.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from orinspect.tests.rtsp_streams import lack_of_gstreamer

VARIABLE = "ORINSPECT_REQUIRE"


def program(name: str, *folders: str) -> str | None:
    """The path of a program on PATH or in one of `folders` (Debian keeps servers out of a user's PATH)."""
    beside = [str(Path(folder) / name) for folder in folders if (Path(folder) / name).exists()]
    return shutil.which(name) or next(iter(beside), None)


def postgresql_folder() -> Path | None:
    """Where `initdb` and `postgres` of the newest PostgreSQL stand; Debian has them under its version."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    found = str(places[-1]) if places else shutil.which("initdb")
    return Path(found).parent if found else None


def _lacks_mosquitto() -> str | None:
    return None if program("mosquitto", "/usr/sbin") else "mosquitto is not installed"


def _lacks_postgresql() -> str | None:
    if postgresql_folder() is None:
        return "PostgreSQL's server (initdb) is not installed"
    return None if find_spec("psycopg") else "psycopg, the driver of PostgreSQL, is not installed"


def _lacks_strace() -> str | None:
    """It may be there and not allowed to trace, as in some containers."""
    command = [program("strace") or "strace", "-o", os.devnull, "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "strace is not installed"
    return None if done.returncode == 0 else f"strace cannot trace here ({done.stderr.strip()[-80:]})"


def _lacks_openssl() -> str | None:
    return None if program("openssl") else "openssl is not installed"


PROBES: dict[str, Callable[[], str | None]] = {
    "mosquitto": _lacks_mosquitto,
    "gstreamer": lack_of_gstreamer,
    "postgresql": _lacks_postgresql,
    "openssl": _lacks_openssl,
    "strace": _lacks_strace,
}


@cache
def lack_of(name: str) -> str | None:
    """Why `name` cannot be used on this machine; None when it can. Asked once a run."""
    if name not in PROBES:
        raise ValueError(f"no program {name!r} in PROBES; known are {', '.join(PROBES)}")
    return PROBES[name]()


def required_from(environment: Mapping[str, str]) -> frozenset[str]:
    """The names in ORINSPECT_REQUIRE; ValueError for one that nobody knows, which would protect nothing."""
    names = {name.strip() for name in environment.get(VARIABLE, "").split(",")} - {""}
    if "all" in names:
        return frozenset(PROBES)
    if unknown := names - PROBES.keys():
        raise ValueError(
            f"{VARIABLE} names {', '.join(sorted(unknown))}; known are all, {', '.join(PROBES)}"
        )
    return frozenset(names)


def wanted(name: str) -> bool:
    """True where a test that could do without `name` must use it: it is here, or must be here."""
    return lack_of(name) is None or name in required_from(os.environ)


def require(*names: str) -> None:
    """Go on only where every program is here: else skip with the reason, or fail where it is required."""
    for name in names:
        reason = lack_of(name)
        if reason is None:
            continue
        if name in required_from(os.environ):
            pytest.fail(f"{reason}, and {VARIABLE} says that it must be here", pytrace=False)
        pytest.skip(f"{reason}; {VARIABLE}={name} makes this a failure")

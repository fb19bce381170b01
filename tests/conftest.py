"""What holds for every test: Ctrl-C works, no file of this checkout is loaded under two module names, and the
programs that a test requires are here (`tests/programs.py`)."""

from __future__ import annotations

import os
import signal
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from orinspect.tests.programs import require, required_from

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts pytest in the background hands down an ignored SIGINT, to our children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        required_from(os.environ)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.requires("mosquitto")`: before any fixture of the test is made."""
    for mark in item.iter_markers("requires"):
        require(*mark.args)


def files_under_two_names() -> dict[str, list[str]]:
    """Files of the checkout that `sys.modules` holds twice: two copies of a class, two copies of state."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        path = Path(file or "/").resolve()
        if path.is_relative_to(ROOT) and not path.relative_to(ROOT).parts[0].startswith(".venv"):
            names[str(path.relative_to(ROOT))].append(name)
    return {file: found for file, found in names.items() if len(found) > 1}


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the whole run: such a file makes other tests pass or fail for the wrong reason."""
    double = files_under_two_names()
    if double:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        for file, found in double.items():
            if reporter is not None:
                reporter.write_line(f"{file} is loaded under two names: {', '.join(found)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

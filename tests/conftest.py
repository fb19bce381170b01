"""What holds for every test: Ctrl-C works, and no file of this checkout is loaded under two module names."""

from __future__ import annotations

import signal
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts pytest in the background hands down an ignored SIGINT, to our children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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

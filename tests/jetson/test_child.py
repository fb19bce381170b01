"""Work in a child process: its result, its words, its errors and its death."""

from __future__ import annotations

import signal

import pytest

from orinspect.jetson.child import run_in_child
from orinspect.runtime.errors import BundleError, EngineError
from orinspect.tests.jetson.child_works import broken, doubled, killed, left, refused


def test_the_result_and_the_words_arrive() -> None:
    heard: list[tuple[object, ...]] = []
    assert run_in_child(doubled, 21, heard=lambda *said: heard.append(said), what="the sum") == 42
    assert heard == [("working on", 21)]


def test_errors_keep_their_class_and_their_words() -> None:
    with pytest.raises(BundleError, match="bundle x is broken; copy it again"):
        run_in_child(refused, heard=print, what="x")
    with pytest.raises(EngineError, match=r"broken failed unexpectedly: .*loose end"):
        run_in_child(broken, heard=print, what="x")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, r"the build was killed, most likely because memory ran out; .*--parts N"),
        (signal.SIGSEGV, "the build crashed with SIGSEGV"),
    ],
)
def test_a_death_is_a_sentence(number: int, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        run_in_child(killed, number, heard=print, what="the build")


def test_a_silent_exit_is_a_sentence() -> None:
    with pytest.raises(EngineError, match=r"ended without a result \(exit code 3\)"):
        run_in_child(left, heard=print, what="the build")

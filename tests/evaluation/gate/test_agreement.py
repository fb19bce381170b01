"""Token agreement: what counts as agreed, as clear, as a whole answer; and when the two runs do not fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from orinspect.evaluation.gate.agreement import FloatPath
from orinspect.runtime.errors import EngineError


def logits(*values: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array(values, np.float64)


def walked(path: FloatPath, select: str, choices: Sequence[tuple[int, int, tuple[float, ...]]]) -> list[int]:
    taken = []
    for part, tile, values in choices:
        path.begin(part)
        taken.append(getattr(path, select)(tile, logits(*values)))
    return taken


def test_int8_is_led_along_floats_path_and_compared_with_it() -> None:
    path = FloatPath()
    exact = [(0, 0, (3.0, 0.0)), (0, 1, (0.0, 0.2, 0.1)), (0, 0, (0.0, 2.0)), (1, 0, (1.0, 0.0))]
    int8 = [(0, 0, (2.5, 0.0)), (0, 1, (0.0, 0.1, 0.3)), (0, 0, (0.0, 2.0)), (1, 0, (1.0, 0.5))]
    assert walked(path, "taking", exact) == [0, 1, 1, 0]
    assert walked(path, "leading", int8) == [0, 1, 1, 0]  # also where INT8 would take the third token
    found = path.agreement()
    assert (found.decisions, found.agreed) == (4, 3)
    assert (found.clear, found.clear_agreed) == (3, 3)
    assert (found.answers, found.answers_equal) == (3, 2)
    assert found.share == 0.75
    assert found.largest_margin_lost == pytest.approx(0.1)
    moved = np.array([0.5, 0.1 - (0.1 - 0.3), 0.0, 0.5])
    assert found.logit_error == pytest.approx(float(np.sqrt(np.square(moved).mean())))


def test_one_wrong_token_makes_the_answer_another() -> None:
    path = FloatPath()
    exact = [(0, 0, (9.0, 0.0)), (0, 0, (9.0, 0.0))]
    walked(path, "taking", exact)
    walked(path, "leading", [exact[0], (0, 0, (0.0, 9.0))])
    assert path.agreement().answers_equal == 0
    assert path.agreement().largest_margin_lost == 9.0


@pytest.mark.parametrize("wrong", [(1, 0, (1.0, 0.0)), (0, 1, (1.0, 0.0)), (0, 0, (1.0, 0.0, 0.0))])
def test_another_path_is_refused(wrong: tuple[int, int, tuple[float, ...]]) -> None:
    path = FloatPath()
    walked(path, "taking", [(0, 0, (1.0, 0.0))])
    with pytest.raises(EngineError, match="left the path of the float run; give two bundles of one"):
        walked(path, "leading", [wrong])


def test_a_choice_too_many_is_refused() -> None:
    with pytest.raises(EngineError, match="left the path"):
        walked(FloatPath(), "leading", [(0, 0, (1.0, 0.0))])


def test_nothing_decided_is_full_agreement() -> None:
    assert FloatPath().agreement().share == 1.0

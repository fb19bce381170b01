import numpy as np
import pytest

from orinspect.calibration import exact_dot
from orinspect.calibration.exact_dot import COLUMNS, LENGTH, prove_exact_sums
from orinspect.calibration.sessions import Session, kernel_counts
from orinspect.runtime.errors import EngineError


def test_this_machine_adds_exactly() -> None:
    prove_exact_sums()


def test_the_extreme_dot_has_its_value_and_runs_on_integer_kernels() -> None:
    weight = np.full((LENGTH, COLUMNS), 127, np.int8)
    model = exact_dot._integer_graph(weight)
    with Session(model, threads=1) as session:
        sums = session.run({"x": np.full((1, LENGTH), 255, np.uint8)})["y"]
    assert set(sums.ravel().tolist()) == {4096 * 255 * 127}
    assert kernel_counts(model) == {"MatMulInteger": 1}
    assert kernel_counts(exact_dot._qdq_graph(weight))["MatMulIntegerToFloat"] == 1


def test_a_saturated_sum_is_an_error_that_says_what_to_do() -> None:
    exact = np.array([[4096 * 255 * 127]])
    saturated = np.array([[2048 * 32767]], np.int32)  # what a CPU without VNNI would give
    with pytest.raises(EngineError, match=r"67106816 instead of 132648960.*VNNI"):
        exact_dot._compare(saturated, exact, 1)

"""Self-test: do our sessions add u8 x s8 products exactly on this machine?

On CPUs without VNNI the fast kernel adds two products in 16 bits and saturates (255 x 127 x 2 > 32767); there
a session asks for the exact kernel (`sums_are_exact` of the runtime's engine). Were that not heeded,
calibration and the accuracy gate would measure the CPU, not the model. The test runs the longest, most
extreme sums we meet, through the two operators our graphs end up in, at row counts that take different kernel
paths.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..runtime.errors import EngineError
from .sessions import Session

LENGTH = 4096  # longest dot that is tested; 4096 x 255 x 127 fits in int32 eight times over
COLUMNS = 33  # not a multiple of a vector register: the kernels' edges are tested too
ROW_COUNTS = (1, 7, 64)


def prove_exact_sums() -> None:
    """Raise EngineError unless ONNX Runtime's u8 x s8 sums on this CPU are exact; takes under 0.1 s."""
    weight = np.random.default_rng(0).integers(-127, 128, (LENGTH, COLUMNS)).astype(np.int8)
    weight[:, 0] = 127  # the dot of 255 x 127
    weight[:, 1] = -127
    with Session(_integer_graph(weight), threads=1) as integer, Session(_qdq_graph(weight), threads=1) as qdq:
        for rows in ROW_COUNTS:
            left = np.random.default_rng(rows).integers(0, 256, (rows, LENGTH)).astype(np.uint8)
            left[0] = 255
            _compare(integer.run({"x": left})["y"], left.astype(np.int64) @ weight.astype(np.int64), rows)
            centred = left.astype(np.int64) - 128
            _compare(qdq.run({"x": centred.astype(np.float32)})["y"], centred @ weight.astype(np.int64), rows)


def _compare(measured: npt.NDArray[np.generic], exact: npt.NDArray[np.int64], rows: int) -> None:
    """`exact` in `measured`'s own type: int32, or float32 with its one rounding of the whole sum."""
    expected = exact.astype(measured.dtype)
    if not np.array_equal(measured, expected):
        row, column = np.argwhere(measured != expected)[0]
        raise EngineError(
            f"u8 x s8 sums are not exact on this CPU: a dot of {LENGTH} at {rows} rows gave"
            f" {measured[row, column]} instead of {exact[row, column]}, though session.x64quantprecision is"
            " set where it is needed: export on a CPU with VNNI or use another onnxruntime version"
        )


def _integer_graph(weight: npt.NDArray[np.int8]) -> bytes:
    """x uint8 [rows, LENGTH] -> y int32 [rows, COLUMNS] by MatMulInteger, zero points 0."""
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"], name="integer")
    return _graph([node], [numpy_helper.from_array(weight, "w")], TensorProto.UINT8, TensorProto.INT32)


def _qdq_graph(weight: npt.NDArray[np.int8]) -> bytes:
    """x float32 holding integers -128..127 -> the same sums in float32, as `export/int8.py` writes them."""
    tensors = [
        numpy_helper.from_array(weight, "w"),
        numpy_helper.from_array(np.ones(COLUMNS, np.float32), "w_scale"),
        numpy_helper.from_array(np.array(1, np.float32), "scale"),
        numpy_helper.from_array(np.array(128, np.uint8), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale"], ["dw"], axis=1),
        helper.make_node("MatMul", ["d", "dw"], ["y"], name="qdq"),
    ]
    return _graph(nodes, tensors, TensorProto.FLOAT, TensorProto.FLOAT)


def _graph(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], input_type: int, output_type: int
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "exact_dot",
        [helper.make_tensor_value_info("x", input_type, ["rows", LENGTH])],
        [helper.make_tensor_value_info("y", output_type, ["rows", COLUMNS])],
        tensors,
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())

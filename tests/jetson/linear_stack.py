"""A stack of INT8 linears as an ONNX file with its weights beside it, and the memory that its build takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_BUILD = """
import json, sys
from pathlib import Path
from orinspect.runtime.infer.engines.profile_choice import Profile, Range
from orinspect.runtime.infer.engines.tensorrt_builder import PlanOrder, plan_from_order
graph, plan, width = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def profile(name, low, high):
    return Profile(name, {"x": Range((1, low, width), (4, high, width), (16, high, width))})
profiles = (profile("one", 1, 1), profile("few", 2, 8), profile("many", 9, 320))
built = plan_from_order(
    PlanOrder("tensorrt_rtx", graph, plan, profiles, None, 256 << 20, "SM86"), lambda *_: None
)
# not ru_maxrss, which a child takes over from a parent that was larger
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
print(json.dumps([peak, built.bytes]))
"""


def write_stack(path: Path, *, layers: int, width: int) -> int:
    """`layers` linears [width, width] one behind the other; the bytes of their weights."""
    rng = np.random.default_rng(0)
    nodes, tensors, value = [], [], "x"
    with path.with_suffix(".weights").open("wb") as data:
        for index in range(layers):
            name = f"layers.{index}.p"
            tensor = TensorProto(name=f"{name}.weight", dims=[width, width], data_type=TensorProto.INT8)
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": path.with_suffix(".weights").name, "offset": data.tell(), "length": width**2}
            for key, entry in place.items():
                tensor.external_data.add(key=key, value=str(entry))
            data.write(rng.integers(-127, 127, width * width).astype(np.int8).tobytes())
            tensors += [
                tensor,
                numpy_helper.from_array(np.full(width, 1e-3, np.float32), f"{name}.scales"),
                numpy_helper.from_array(np.zeros(width, np.int8), f"{name}.zeros"),
                numpy_helper.from_array(np.array(0.05, np.float32), f"{name}.scale"),
                numpy_helper.from_array(np.array(0, np.int8), f"{name}.zero"),
            ]
            nodes += [
                helper.make_node("QuantizeLinear", [value, f"{name}.scale", f"{name}.zero"], [f"{name}.q"]),
                helper.make_node(
                    "DequantizeLinear", [f"{name}.q", f"{name}.scale", f"{name}.zero"], [f"{name}.d"]
                ),
                helper.make_node(
                    "DequantizeLinear",
                    [f"{name}.weight", f"{name}.scales", f"{name}.zeros"],
                    [f"{name}.w"],
                    axis=1,
                ),
                helper.make_node("MatMul", [f"{name}.d", f"{name}.w"], [f"{name}.y"], name=name),
                helper.make_node("Relu", [f"{name}.y"], [f"{name}.r"]),
            ]
            value = f"{name}.r"
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["b", "k", width]) for end in ("x", value)]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return layers * width * width


def peak_of_build(graph: Path, plan: Path, *, width: int) -> tuple[int, int]:
    """Peak resident bytes of a child process that builds the stack for SM86, and the plan's bytes."""
    command = [sys.executable, "-c", _BUILD, str(graph), str(plan), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).anchor)
    peak, size = json.loads(done.stdout.splitlines()[-1])
    return int(peak), int(size)

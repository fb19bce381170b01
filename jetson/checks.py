"""What runs in the child processes of `orinspect engines`: all that loads TensorRT or opens the device."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..runtime.errors import EngineError
from ..runtime.infer.bundle import Bundle
from ..runtime.infer.engines.cuda import driver_of_this_machine
from ..runtime.infer.engines.device import CudaDevice
from ..runtime.infer.engines.plans import BoardFacts, PlanSet, l4t_of_this_board
from ..runtime.infer.engines.profile_choice import component_plans
from ..runtime.infer.engines.tensorrt_builder import BuiltPlan, PlanOrder, plan_from_order
from ..runtime.infer.engines.tensorrt_device import TensorrtDevice, board_facts
from ..runtime.infer.engines.tensorrt_engine import tensorrt_library
from ..runtime.infer.golden_frames import check_golden, golden_frames
from .layers import Int8Count, int8_counts, layers_from_json, linears_of_part
from .past_check import past_errors

SAY_EVERY_S = 1.0

Tell = Callable[..., None]


def facts_in_child(tell: Tell, library: str, compute_capability: str | None) -> BoardFacts:
    """What plans built here are bound to; `compute_capability` stands in for a GPU that is not there."""
    trt = tensorrt_library(library)
    if compute_capability is not None:
        return BoardFacts(library, str(trt.__version__), "", l4t_of_this_board(), compute_capability)
    with CudaDevice(driver_of_this_machine()) as device:
        return board_facts(trt, library, device)


def plan_in_child(tell: Tell, order: PlanOrder) -> BuiltPlan:
    """One plan; tells (phase, steps done, steps) at most once a second."""
    last = 0.0

    def say(phase: str, step: int, steps: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SAY_EVERY_S:
            last = now
            tell(phase, step, steps)

    return plan_from_order(order, say)


def report_in_child(tell: Tell, bundle_path: Path, folder: Path) -> dict[str, Any]:
    """Load every plan of a set; count INT8 linears, run the golden frames, the decoder's also in passes."""
    bundle = Bundle.open(bundle_path, verify=False)
    plans = PlanSet.read(folder)
    with TensorrtDevice(bundle, plan_set=plans) as device:
        counts = _counted(tell, bundle, plans, device)
        tell("golden frames")
        engine = functools.cache(device.engine)  # the decoder is looked at twice and loaded once
        found = check_golden(bundle, engine)
        tell("the past on the device")
        frames, lost = 0, list[str]()
        for frame in golden_frames(bundle):
            frames += 1
            if frame.component == "decoder":
                known = component_plans(bundle.path)["decoder"]
                lost += past_errors(frame, engine("decoder"), known, bundle.shape)
    # what is not a number is wrong whatever the margins of the frame's choices are
    wrong = [str(one) for one in found if one.may_gate or not math.isfinite(one.error)] + lost
    return {
        "wrong": wrong,
        "golden": {"frames": frames, "out_of_tolerance": [*map(str, found), *lost]},
        "int8": counts,
    }


def _counted(tell: Tell, bundle: Bundle, plans: PlanSet, device: TensorrtDevice) -> dict[str, Any]:
    """Plan -> profile -> how many linears run in INT8, and the names of those that do not."""
    counts: dict[str, Any] = {}
    for name, known in component_plans(bundle.path).items():
        layers = known.layers.get(plans.parts, ())
        for part, plan in enumerate(plans.plans(name)):
            tell(plan.file)
            engine = device.part(name, plan)
            intended = linears_of_part(known.int8_linears, layers, part)
            if intended:
                names = [profile.name for profile in engine.profiles]
                found = int8_counts(layers_from_json(engine.inspected()), names, intended)
                counts[plan.file] = counts_table(found)
            engine.close()
    return counts


def counts_table(counts: Iterable[Int8Count]) -> dict[str, Any]:
    """Int8Counts as plain values."""
    return {
        count.profile: {"int8": count.int8, "intended": count.intended, "in_float": list(count.in_float)}
        for count in counts
    }


def check_library(library: str, compute_capability: str | None) -> None:
    """EngineError for a trial without a target, or a device build with the trial's library."""
    if (library == "tensorrt_rtx") != (compute_capability is not None):
        raise EngineError(
            "--library tensorrt_rtx makes a trial on a workstation and needs --compute-capability, as SM86; "
            "the engines of a device are built with --library tensorrt and without it"
        )

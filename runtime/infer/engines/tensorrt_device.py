"""The device as one bundle's TensorRT engines share it: one CUDA context, one stream, one scratch memory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .cuda import driver_of_this_machine
from .device import CudaDevice
from .engine import Engine
from .parts import PartedEngine
from .plans import (
    BoardFacts,
    PlanFile,
    PlanSet,
    current_set,
    l4t_of_this_board,
    model_hash,
    name_of_this_board,
    plans_folder,
)
from .profile_choice import component_plans
from .tensorrt_engine import Scratch, TensorrtEngine, tensorrt_library, tensorrt_logger

if TYPE_CHECKING:
    from ..bundle import Bundle


def board_facts(trt: Any, library: str, device: CudaDevice) -> BoardFacts:
    """What plans built or loaded here are bound to."""
    major, minor = device.capability
    cuda = f"{device.cuda_version // 1000}.{device.cuda_version % 1000 // 10}"
    version, board = str(trt.__version__), name_of_this_board()
    return BoardFacts(library, version, cuda, l4t_of_this_board(), f"{major}.{minor}", board)


class TensorrtDevice:
    """The device, open for one bundle's engines; a context manager that frees all of them in order."""

    def __init__(
        self, bundle: Bundle, plans: Path | None = None, *, plan_set: PlanSet | None = None
    ) -> None:
        """`plans`: folder of the engines; `plan_set`: a set that is not in use yet, to verify it.

        EngineError when TensorRT, the device or the engines are missing or do not fit together.
        """
        self._trt = trt = tensorrt_library()
        self._components = component_plans(bundle.path)
        self._set = plan_set or current_set(plans or plans_folder(bundle.path))
        self._said: list[str] = []
        self._logger = tensorrt_logger(trt, self._said)
        with ExitStack() as opened:
            self._cuda = opened.enter_context(CudaDevice(driver_of_this_machine()))
            self._set.check(model_hash(bundle.manifest["files"]), board_facts(trt, "tensorrt", self._cuda))
            with self._cuda.current():
                self._runtime: Any = trt.Runtime(self._logger)
            opened.callback(self._drop_runtime)
            self._scratch = Scratch(self._cuda)
            self._opened = opened.pop_all()

    def engine(self, component: str) -> Engine:
        """The engine of one component, its parts joined; closed with the device at the latest."""
        engines = [self.part(component, plan) for plan in self._set.plans(component)]
        return engines[0] if len(engines) == 1 else PartedEngine(engines)

    def part(self, component: str, plan: PlanFile) -> TensorrtEngine:
        """The engine of one plan."""
        known = self._components[component]
        engine = TensorrtEngine(
            self._trt, self._runtime, self._cuda, self._scratch, self._set.folder / plan.file, self._said
        )
        self._opened.callback(engine.close)
        engine.serve(known.profiles(engine.inputs, plan.layers), known.least_k)
        return engine

    def close(self) -> None:
        """Free engines, runtime, memory and context, in this order; twice is fine."""
        self._opened.close()

    def _drop_runtime(self) -> None:
        with self._cuda.current():
            self._runtime = None

    def __enter__(self) -> TensorrtDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""A service with a real camera process, outbox and MQTT, and an inspector that waits for the test's word.

    python -m orinspect.tests.line_child service.toml [pass|reject|broken|crash|real]

It prints `inspecting PART` and goes on when a line, or the end, of standard input comes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from orinspect.runtime.capture.frame import Frame
from orinspect.runtime.config import InspectionConfig, load_config
from orinspect.runtime.errors import EngineError, OrinspectError
from orinspect.runtime.infer.golden_frames import Mismatch
from orinspect.runtime.infer.inspector import Inspection
from orinspect.runtime.infer.judgement import UNJUDGED, Judgement
from orinspect.runtime.recipe import Recipe
from orinspect.runtime.report import BundleIdentity
from orinspect.runtime.service import inspector_from_config, run_service
from orinspect.tests.report_cases import RECIPE, candidate, inspection


class WaitingInspector:
    """Says what it was told to say about every part."""

    def __init__(self, says: str) -> None:
        self.says = says

    @property
    def recipe(self) -> Recipe:
        return RECIPE

    @property
    def judgement(self) -> Judgement:
        return UNJUDGED

    def golden_mismatches(self) -> tuple[int, tuple[Mismatch, ...]]:
        return 0, ()

    def inspect(self, frame: Frame) -> Inspection:
        assert frame.truth is None, "the truth must stay with the camera"
        print(f"inspecting {frame.part_id}", flush=True)
        sys.stdin.readline()
        if self.says == "broken":
            raise EngineError("the engine gave NaN")
        if self.says == "crash":
            raise ZeroDivisionError("a fault of ours")
        return inspection([candidate()] if self.says == "reject" else [])


def main() -> int:
    """Like `orinspect run`."""
    says = sys.argv[2] if len(sys.argv) > 2 else "pass"

    @contextlib.contextmanager
    def opened(config: InspectionConfig) -> Iterator[tuple[WaitingInspector, BundleIdentity]]:
        yield WaitingInspector(says), BundleIdentity("b" * 16, "b" * 64, "int8", "none")

    logging.basicConfig(level=logging.INFO)
    opener = inspector_from_config if says == "real" else opened
    try:
        return run_service(load_config(sys.argv[1]), open_inspector=opener, environment=os.environ)
    except OrinspectError as error:
        print(f"orinspect: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())

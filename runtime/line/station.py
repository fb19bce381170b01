"""What inspects: the engines of a bundle, open for one of its recipes, and the gate that releases them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from ..capture.frame import Frame
from ..config import InspectionConfig
from ..errors import BundleError, EngineError, OrinspectError, RecipeError
from ..infer.bundle import Bundle
from ..infer.golden_frames import Mismatch
from ..infer.inspector import Inspection, Inspector
from ..infer.judgement import Judgement
from ..recipe import Recipe
from ..report import BundleIdentity

log = logging.getLogger(__name__)


class Inspects(Protocol):
    """What the service needs of an `Inspector`; a test brings its own."""

    @property
    def recipe(self) -> Recipe:
        """The recipe that is inspected."""
        ...

    @property
    def judgement(self) -> Judgement:
        """What the bundle knows of this recipe's confidences and pictures."""
        ...

    def inspect(self, frame: Frame) -> Inspection:
        """Inspect one frame; PictureError or EngineError when that fails."""
        ...

    def golden_mismatches(self) -> tuple[int, tuple[Mismatch, ...]]:
        """How many golden frames ran through the engines, and the outputs that left their tolerance."""
        ...


Opener = Callable[[InspectionConfig], AbstractContextManager[tuple[Inspects, BundleIdentity]]]


@contextmanager
def inspector_from_config(config: InspectionConfig) -> Iterator[tuple[Inspects, BundleIdentity]]:
    """The bundle's engines, open for one recipe."""
    bundle = Bundle.open(config.bundle)
    _check_frames(bundle.recipe(config.recipe).recipe)
    with Inspector(
        bundle, config.recipe, config.threads, backend=config.backend, plans=config.engines
    ) as inspector:
        yield inspector, bundle_identity(bundle, config.backend)


def check_installed(config: InspectionConfig) -> Bundle:
    """Whole on disk, and with a recipe that the service can run; BundleError or RecipeError when not."""
    bundle = Bundle.open(config.bundle)
    _check_frames(bundle.recipe(config.recipe).recipe)
    return bundle


@dataclass(frozen=True)
class SelfTest:
    """What the golden frames said: how many ran, what forbids inspecting, what is only worth a line."""

    frames: int
    wrong: tuple[str, ...]
    noted: tuple[str, ...]

    @property
    def is_passed(self) -> bool:
        """Whether parts may be inspected."""
        return not self.wrong


class Station:
    """The engines in use, one set at a time. One thread opens, tests, swaps and closes them, since a GPU
    context belongs to a thread; a context manager.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._opened = ExitStack()
        self._in_use: tuple[InspectionConfig, Inspects, BundleIdentity] | None = None

    def __enter__(self) -> Station:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def config(self) -> InspectionConfig | None:
        """What is open; None when nothing is."""
        return None if self._in_use is None else self._in_use[0]

    @property
    def inspector(self) -> Inspects:
        """The engines; EngineError when none are open."""
        return self._used()[1]

    @property
    def identity(self) -> BundleIdentity:
        """The bundle as the report names it."""
        return self._used()[2]

    def open(self, config: InspectionConfig) -> SelfTest:
        """Open engines and hold them against their golden frames; OrinspectError when they do not open."""
        self.close()
        inspector, identity = self._opened.enter_context(self._opener(config))
        self._in_use = config, inspector, identity
        return self.test()

    def close(self) -> None:
        """Free the engines; twice is fine."""
        self._in_use = None
        self._opened.close()

    def test(self) -> SelfTest:
        """The golden frames of the engines in use; EngineError when an engine fails."""
        try:
            frames, found = self.inspector.golden_mismatches()
        except BundleError as error:
            return SelfTest(0, (str(error),), ())
        wrong = [str(one) for one in found if one.may_gate or not math.isfinite(one.error)]
        noted = [str(one) for one in found if not one.may_gate and math.isfinite(one.error)]
        for sentence in noted:
            log.warning("golden frame (too close to call, forbids nothing): %s", sentence)
        return SelfTest(frames, tuple(wrong), tuple(noted))

    def swap(self, new: InspectionConfig) -> tuple[SelfTest, str | None]:
        """Open other engines: the self-test of those in use then, and why they are not the new ones.

        What can be seen without engines is checked while the old ones stand. Two sets of engines do not fit
        into the memory of a small board, so the old ones go before the new ones come; when those do not open
        or fail their golden frames, the old ones are opened again. OrinspectError when not even that works.
        """
        old = self.config
        try:
            check_installed(new)
        except OrinspectError as error:
            return SelfTest(0, (), ()), str(error)
        test: SelfTest | None = None
        try:
            test = self.open(new)
            problem = f"the golden frames forbid it: {'; '.join(test.wrong)}"
        except OrinspectError as error:
            problem = str(error)
        if test is not None and test.is_passed:
            return test, None
        if old is None:  # there was nothing to go back to
            self.close()
            return SelfTest(0, (problem,), ()), problem
        log.warning("%s: %s; opening the engines of %s again", new.bundle, problem, old.bundle)
        return self.open(old), problem

    def _used(self) -> tuple[InspectionConfig, Inspects, BundleIdentity]:
        if self._in_use is None:
            raise EngineError("no engines are open; send bundle/activate, or start the service again")
        return self._in_use


def bundle_identity(bundle: Bundle, backend: str) -> BundleIdentity:
    """The bundle as the report names it."""
    return BundleIdentity(bundle.id, bundle.sha256, bundle.precision, backend)


def _check_frames(recipe: Recipe) -> None:
    """RecipeError for a recipe whose parts a camera of single frames cannot give."""
    if recipe.mode == "clip":
        raise RecipeError(
            f"recipe {recipe.id}: mode 'clip' takes {recipe.clip.frames} frames a part, the service's cameras"
            " give one; use `orinspect inspect BUNDLE FOLDER` for clips"
        )

"""What inspects: the engines of a bundle, open for one of its recipes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ..capture.frame import Frame
from ..config import InspectionConfig
from ..errors import RecipeError
from ..infer.bundle import Bundle
from ..infer.inspector import Inspection, Inspector
from ..infer.judgement import Judgement
from ..recipe import Recipe
from ..report import BundleIdentity


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


@contextmanager
def inspector_from_config(config: InspectionConfig) -> Iterator[tuple[Inspects, BundleIdentity]]:
    """The bundle's engines, open for one recipe."""
    bundle = Bundle.open(config.bundle)
    _check_frames(bundle.recipe(config.recipe).recipe)
    with Inspector(
        bundle, config.recipe, config.threads, backend=config.backend, plans=config.engines
    ) as inspector:
        yield inspector, bundle_identity(bundle, config.backend)


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

"""What the reference checkpoints are asked: their defect types, and one prompt a kind of picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from orinspect.export.prompt import prompt_ids
from orinspect.runtime.capture.scenes import DEFECT_TYPES
from orinspect.runtime.capture.scenes.metal import METAL_TYPES
from orinspect.runtime.recipe import load_recipe

HERE = Path(__file__).parents[1]
Task = Literal["compare", "surface"]

RECIPES: dict[Task, Path] = {
    "compare": HERE / "pcb-compare.toml",
    "surface": HERE / "metal-surface.toml",
}
SCENE_TYPES: tuple[str, ...] = (*DEFECT_TYPES, *METAL_TYPES)
STEEL_TYPES = ("crazing", "inclusion", "patches", "pitted", "rolled-in")
"""NEU's classes that no scene has; its sixth, scratches, is the scenes' scratch."""
TILE_TYPES = ("blowhole", "break", "fray", "uneven")
"""Magnetic tile's classes that no scene has; its fifth is the scenes' crack."""
RESEARCH_TYPES: tuple[str, ...] = (*SCENE_TYPES, *STEEL_TYPES, *TILE_TYPES)


class Prompt(NamedTuple):
    """Token ids before and after the picture."""

    prefix: list[int]
    suffix: list[int]


def prompts_from_recipes(tokenizer: Any) -> dict[Task, Prompt]:
    """The prompt of every task, as export compiles it."""
    return {task: Prompt(*prompt_ids(tokenizer, load_recipe(path))) for task, path in RECIPES.items()}

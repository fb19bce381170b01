"""The page itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.recipe import Recipe
from ..inspected import EvaluatedPart
from ..sets.example import Row
from ..terminal import Progress


@dataclass(frozen=True)
class PageInput:
    """What the page shows: the result object, the parts behind it, and the rows that can be read again."""

    result: dict[str, Any]
    parts: Sequence[EvaluatedPart]
    rows: Sequence[Row]
    recipe: Recipe
    command: str


def write_page(folder: Path, page: PageInput, progress: Progress | None = None) -> None:
    """Write the page."""
    raise NotImplementedError

"""What inspecting cost: decoder passes against their budget, and milliseconds by stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...runtime.infer.inspector import Passes

PASS_FIELDS = ("row_passes", "row_passes_forced", "engine_calls", "tiles", "tiles_gated", "tiles_decoded",
               "canonical_tokens")
# At most 15 row-passes a reported defect and 2 a tile.
BUDGET_PER_DEFECT = 15
BUDGET_PER_TILE = 2


def passes_summary(parts: Sequence[tuple[Passes, int]]) -> dict[str, Any]:
    """Sums of `Passes` over parts given with their number of reported defects.

    `row_passes_per_defect` divides by reported defects, `row_passes_per_tile` by tiles that were decoded,
    None where there is none. `budget` allows 15 a reported defect and 2 a tile that reached the network;
    `parts_over` counts the parts that needed more. A defect that two overlapping tiles hold is decoded twice
    and reported once.
    """
    sums: dict[str, int] = {
        name: sum(int(getattr(passes, name)) for passes, _ in parts) for name in PASS_FIELDS
    }
    defects = sum(count for _, count in parts)
    over = sum(passes.row_passes > _allowed(passes, count) for passes, count in parts)
    return {
        **sums,
        "defects": defects,
        "row_passes_per_defect": _ratio(sums["row_passes"], defects),
        "row_passes_per_tile": _ratio(sums["row_passes"], sums["tiles_decoded"]),
        "engine_calls_per_part": _ratio(sums["engine_calls"], len(parts)),
        "canonical_tokens_per_part": _ratio(sums["canonical_tokens"], len(parts)),
        "budget": {"allowed": sum(_allowed(passes, count) for passes, count in parts),
                   "used": sums["row_passes"], "parts_over": over},
    }



def stage_times(
    stages: Sequence[dict[str, float]], totals_ms: Sequence[float]
) -> dict[str, dict[str, float]]:
    """`ms_per_part` (means) and `ms_per_part_p95`: a stage that did not run on a part took 0 ms there."""
    names = dict.fromkeys(name for one in stages for name in one)
    table = {**{name: [one.get(name, 0.0) for one in stages] for name in names}, "total": list(totals_ms)}
    return {"ms_per_part": {name: mean(values) for name, values in table.items()},
            "ms_per_part_p95": {name: float(np.percentile(values, 95)) if values else 0.0
                                for name, values in table.items()}}


def mean(values: Iterable[float]) -> float:
    """Mean, 0 for nothing."""
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def _allowed(passes: Passes, defects: int) -> int:
    """Row-passes that one part may take."""
    return BUDGET_PER_DEFECT * defects + BUDGET_PER_TILE * (passes.tiles - passes.tiles_gated)


def _ratio(value: int, count: int) -> float | None:
    """Mean, None for nothing."""
    return value / count if count else None

"""Bootstrap by group: how far a figure moves when other boards, or other parts, had been looked at.

Efron's percentile interval. Parts of one board share their layout, and exposures of one tile are the same
tile, so whole groups are drawn. A few groups cannot say how boards differ: then the interval over parts
stands beside it, and it is the narrower one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

REPLICATES = 1000
SEED = 20_260
LEVEL = 0.95
# With fewer groups than this the percentiles of their resamples mean little.
FEWEST_GROUPS = 10


def group_weights(
    groups: Sequence[str], replicates: int = REPLICATES, seed: int = SEED
) -> Floats:
    """[replicates, len(groups)]: how often each picture is drawn when whole groups are drawn again."""
    names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    count = max(len(names), 1)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=replicates)
    return np.asarray(drawn[:, [names[name] for name in groups]], np.float64)


def percentile_interval(values: Floats, level: float = LEVEL) -> tuple[float, float]:
    """(low, high) of the middle `level` of the values; NaN are left out, (NaN, NaN) when all are."""
    known = values[np.isfinite(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.percentile(known, [50.0 * (1.0 - level), 50.0 * (1.0 + level)])
    return float(low), float(high)


def resampling_units(groups: Sequence[str]) -> dict[str, Sequence[str]]:
    """What is drawn: `group` (where there are two or more) and `part` (where a group has several)."""
    units: dict[str, Sequence[str]] = {}
    if len(set(groups)) > 1:
        units["group"] = groups
    if len(set(groups)) < len(groups) or not units:
        units["part"] = [str(index) for index, _ in enumerate(groups)]
    return units


def trusted_names(groups: Sequence[str]) -> Sequence[str]:
    """What is drawn where there is room for one interval, a name a part: see `trusted_unit`."""
    units = resampling_units(groups)
    return units.get(trusted_unit(resampling_header(groups))) or units["group"]


def trusted_unit(header: Mapping[str, Any]) -> str:
    """Which interval to show where there is room for one: `group` where there are enough, else `part`."""
    return "part" if header["note"] or header["groups"] < FEWEST_GROUPS else "group"


def resampling_header(groups: Sequence[str]) -> dict[str, Any]:
    """What every bootstrap says about itself; `note` when the groups are too few to go by."""
    count = len(set(groups))
    note = None
    if count < 2:
        note = "one group only: parts are drawn"
    elif count < FEWEST_GROUPS:
        note = f"{count} groups are too few for an interval over groups; the one over parts is too narrow"
    return {"replicates": REPLICATES, "seed": SEED, "level": LEVEL, "groups": count, "note": note}

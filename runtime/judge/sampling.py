"""The random share of confident passes that a person looks at, so that what the model misses is noticed.

How many of a lot: the sample size of ISO 2859-1 (`iso-2859-1.json`). Which ones: those whose hash falls under
sample size / lot size. So the draw needs no memory: a restart draws no part twice and none anew. A lot's
count varies around the sample size, as n independent draws do (standard deviation below its square root).
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import RecipeError

TABLE = Path(__file__).with_name("iso-2859-1.json")
SMALLEST_LOT = 2


def sample_size(lot_size: int, level: str = "II") -> int:
    """Parts to look at of a lot by inspection level (S-1 to S-4, I to III), single sampling under normal
    inspection; at most the whole lot.

    RecipeError for a lot under 2 parts or another level.
    """
    table = _table()
    if level not in table["levels"]:
        raise RecipeError(f"the inspection level is {level!r}; ISO 2859-1 has {', '.join(table['levels'])}")
    if lot_size < SMALLEST_LOT:
        raise RecipeError(f"the lot size is {lot_size}; ISO 2859-1 samples lots of {SMALLEST_LOT} and more")
    row = next(
        index for index, most in enumerate(table["lot_size_to"]) if most is None or lot_size <= most
    )
    return min(lot_size, int(table["sample_size"][table["levels"][level][row]]))


def is_sampled(key: str, lot: str | None, *, lot_size: int, level: str = "II") -> bool:
    """Whether the part `key` (its id, else its result_id) of a lot is drawn; always the same answer.

    `lot`: the lot's or shift's name; the same part in another lot is another draw. RecipeError as
    `sample_size` raises it.
    """
    share = sample_size(lot_size, level) / lot_size
    digest = hashlib.sha256(f"{lot or ''}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table

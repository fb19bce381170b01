"""Which pictures the gate looks at: those that calibration used, and others of its source, kept apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import numpy as np

from ...runtime.errors import DataSetError
from ..sets.deeppcb import VALIDATION_BOARDS, deeppcb_root
from ..sets.example import Row
from ..sets.scene_rows import SCENE_PREFIX
from ..sets.source import place_from_source, rows_from_source

GATE_PARTS, VALIDATION_PARTS = 24, 60
"""Most calibration and validation parts. 60 boards hold about 400 defects of the reference recipe: one answer
weighs a quarter of a point of F, so that a loss of half a point shows."""
VALIDATION_SEED = 40_000
"""Added to the seed of calibration scenes for those of the gate; no training and no test comes near it."""


@dataclass(frozen=True)
class GateRows:
    """Rows that calibration used, rows that it did not, and where the second came from."""

    calibration: tuple[Row, ...]
    validation: tuple[Row, ...]
    validation_source: str


def gate_rows(
    source: str,
    used: Collection[str],
    *,
    validation: str | None = None,
    parts: tuple[int, int] = (GATE_PARTS, VALIDATION_PARTS),
    box_margin_px: int = 10,
    clip_frames: int = 1,
) -> GateRows:
    """At most `parts` (calibration, validation) rows, evenly spread; `used` names the rows of calibration.

    Validation is `validation` where it is given, as many other scenes where the source is scenes, else the
    rows of a folder that calibration left; the boards that a DeepPCB folder holds out for scoring are never
    among them. DataSetError when nothing is left.
    """
    rows = _rows(source, box_margin_px, clip_frames)
    calibration = [row for row in rows if row.name in used]
    is_scenes = source.startswith(SCENE_PREFIX)
    where = validation or (_other_scenes(source, min(parts[1], len(rows))) if is_scenes else source)
    others = rows if where == source else _rows(where, box_margin_px, clip_frames)
    left = others
    if _may_share(where, source):
        left = [row for row in others if row.name not in used]
    if not left:
        raise DataSetError(
            f"{source}: calibration used all of its {len(rows)} parts, none is left to check INT8 on;"
            " give more parts, or others with --validation"
        )
    return GateRows(tuple(spread(calibration, parts[0])), tuple(spread(left, parts[1])), where)


def spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` rows, evenly spread over all."""
    if len(rows) <= most:
        return list(rows)
    return [rows[int(index)] for index in np.linspace(0, len(rows) - 1, most).round()]


def _may_share(where: str, source: str) -> bool:
    """Whether rows of one name are one picture in both: scenes carry their seed, folders must be the same,
    however their paths are written.
    """
    if where.startswith(SCENE_PREFIX) or source.startswith(SCENE_PREFIX):
        return where.startswith(SCENE_PREFIX) == source.startswith(SCENE_PREFIX)
    return _root(where) == _root(source)


def _root(source: str) -> Path:
    """Where the pictures of a folder or of an annotation file are, links resolved."""
    path = place_from_source(source, unlabelled=True).path
    return (path.parent if path.is_file() else deeppcb_root(path)).resolve()


def _rows(source: str, box_margin_px: int, clip_frames: int) -> list[Row]:
    is_scenes = source.startswith(SCENE_PREFIX)
    rows = rows_from_source(
        source,
        split=None if is_scenes else "train",
        box_margin_px=box_margin_px,
        unlabelled=True,
        clip_frames=clip_frames,
    )
    return [row for row in rows if is_scenes or row.group not in VALIDATION_BOARDS]


def _other_scenes(source: str, parts: int) -> str:
    """The same kind of scenes under another seed."""
    product, _, query = source.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    options["seed"] = str(int(options.get("seed", "1")) + VALIDATION_SEED)
    options["parts"] = str(parts)
    return f"{product}?{urlencode(options)}"

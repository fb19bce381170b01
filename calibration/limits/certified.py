"""From F at each strength to the range of picture quality in which a bundle keeps its F.

Within the range the loss of F against the clean pictures is less than what is allowed, with 95 % confidence;
beyond it nothing was shown, and a part goes to a person. The range is stated in the numbers that
`runtime/capture/quality.py` measures on the very same pictures, because a camera does not say how much it
blurs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...runtime.capture.quality import Quality

# kind of disturbance -> (quantity beside a template, quantity alone, which side is limited)
QUANTITIES: dict[str, tuple[str, str, str]] = {
    "low_light": ("light_ratio", "brightness", "min"),
    "bright_light": ("light_ratio", "brightness", "max"),
    "blur": ("blur_added_px", "blur_px", "max"),
    "motion": ("blur_added_px", "blur_px", "max"),
    "glare": ("glare_share", "glare_share", "max"),
    "noise": ("noise_sigma", "noise_sigma", "max"),
}

ALLOWED_LOSS = 0.01
"""One point of F."""


@dataclass(frozen=True)
class SweepPoint:
    """All pictures at one strength.

    f with its interval f_low..f_high; loss: of F against the same pictures undisturbed, loss_high: its
    upper 95 % bound, from resampling both together, made to rise with the strength; qualities: as measured,
    picture by picture, of as many as were looked at.
    """

    strength: float
    f: float
    f_low: float
    f_high: float
    loss: float
    loss_high: float
    qualities: tuple[Quality, ...]


def certified_points(points: Sequence[SweepPoint], allowed_loss: float) -> int:
    """How many points, from the weakest on, lose no more than is allowed; what comes after one that does is
    not certified, however good it looks.
    """
    for count, point in enumerate(points):
        if point.loss_high > allowed_loss:
            return count
    return len(points)


def quality_section(
    clean: Sequence[Quality], sweeps: Mapping[str, Sequence[SweepPoint]], allowed_loss: float = ALLOWED_LOSS
) -> dict[str, Any]:
    """The section "quality" of judgement.json: `limits` {quantity: {"min" or "max": number}} and the curves.

    A limit is the median of its quantity over the pictures at the strongest certified strength, the
    narrowest one where two kinds limit the same quantity, and never inside the range of the clean pictures:
    those have the F that everything is compared with. `is_open`: the strongest strength tried was still
    good, so the true end is not known.
    """
    limits: dict[str, dict[str, float]] = {}
    curves: dict[str, Any] = {}
    for kind, points in sweeps.items():
        beside, alone, side = QUANTITIES[kind]
        name = beside if all(getattr(one, beside) is not None for one in clean) else alone
        count = certified_points(points, allowed_loss)
        value = _limit(name, side, clean, points[count - 1].qualities if count else clean)
        if value is not None:
            _narrow(limits.setdefault(name, {}), side, value)
        curves[kind] = {
            "quantity": name,
            "certified": points[count - 1].strength if count else None,
            "is_open": count == len(points),
            "limit": value,
            "points": [_row(point, name) for point in points],
        }
    return {"allowed_loss": allowed_loss, "pictures": len(clean), "limits": limits, "sweeps": curves}


def _limit(name: str, side: str, clean: Sequence[Quality], at: Sequence[Quality]) -> float | None:
    """The median of one quantity, moved out to the clean pictures' own extreme; None where none has it."""
    usual, found = _values(name, clean), _values(name, at)
    if not usual or not found:
        return None
    middle = statistics.median(found)
    return min(middle, *usual) if side == "min" else max(middle, *usual)


def _narrow(limit: dict[str, float], side: str, value: float) -> None:
    """Keep the narrower of two limits on one side."""
    narrower = max if side == "min" else min
    limit[side] = narrower(limit[side], value) if side in limit else value


def _row(point: SweepPoint, name: str) -> dict[str, Any]:
    """One point for JSON: F and loss, and the quantity's median and spread."""
    values = sorted(_values(name, point.qualities))
    row = {key: value for key, value in asdict(point).items() if key != "qualities"}
    middle = statistics.median(values) if values else None
    ends = [values[0], values[-1]] if values else None
    return {**row, "pictures": len(point.qualities), "measured": middle, "measured_low_high": ends}


def _values(name: str, qualities: Sequence[Quality]) -> list[float]:
    return [value for one in qualities if (value := getattr(one, name)) is not None]

"""Which strengths of a disturbance are tried: coarse from the weakest on, then finer where F begins to fall.

Most strengths are clear after a few pictures. A strength that has lost more than is allowed with 95 %
confidence ends its kind, whatever pictures are left; what was saved goes into steps between the last strength
that held and the first that did not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ...calibration.limits.certified import SweepPoint, certified_points
from ...calibration.limits.disturbance import KINDS
from ...calibration.limits.monotone import growing
from ...runtime.capture.quality import Quality
from ..rates.resampling import group_weights, percentile_interval
from ..rates.tally import Tally
from ..scores import ScoredPicture

Floats = npt.NDArray[np.float64]
REFINEMENTS = 2
"""Steps between the last strength that held and the first that did not: each halves the gap."""
_WHOLE = {"low_light": 1.0, "bright_light": 1.0}
"""The strength that does nothing, where it is not 0."""


@dataclass(frozen=True)
class Looked:
    """The first so many pictures at one strength: what was found, and how good they were."""

    pictures: tuple[ScoredPicture, ...]
    qualities: tuple[Quality, ...]

    @cached_property
    def tally(self) -> Tally:
        """Its matches, found once."""
        return Tally.of(self.pictures)

    def f(self, weights: Floats) -> Floats:
        """[resamples] for weights [resamples, pictures]: of the first pictures, where there are fewer."""
        padded = np.zeros((len(weights), len(self.pictures)))
        padded[:, : weights.shape[1]] = weights
        return self.tally.precision_recall_f(padded)[2]


@dataclass(frozen=True)
class _Step:
    strength: float
    looked: Looked
    losses: Floats  # [draws] of F against the same pictures undisturbed
    drawn: Floats  # [draws] F


def has_failed(looked: Looked, clean: Looked, names: Sequence[str], allowed_loss: float) -> bool:
    """Whether these pictures lose more than is allowed with 95 % confidence; `names`: what is drawn, each."""
    step = _step(0.0, looked, clean, names)
    return float(np.percentile(step.losses, 5.0)) > allowed_loss


def tried_strengths(
    kind: str, look: Callable[[float], Looked], clean: Looked, names: Sequence[str], allowed_loss: float
) -> list[SweepPoint]:
    """Points of one kind, the weakest first. `look` inspects the pictures at a strength, and may stop early
    where they have failed; `clean`: all of them undisturbed.
    """
    ladder = KINDS[kind][1]
    rises = ladder[-1] > ladder[0]
    steps: list[_Step] = []
    for strength in ladder:
        steps.append(_step(strength, look(strength), clean, names))
        if len(steps[-1].looked.pictures) < len(clean.pictures):
            break
    for _ in range(REFINEMENTS):
        held = certified_points(sweep_points(steps, clean), allowed_loss)
        if held == len(steps):
            break
        below = steps[held - 1].strength if held else _WHOLE.get(kind, 0.0)
        between = between_strengths(below, steps[held].strength)
        steps.append(_step(between, look(between), clean, names))
        steps.sort(key=lambda one: one.strength, reverse=not rises)
    return sweep_points(steps, clean)


def between_strengths(weaker: float, stronger: float) -> float:
    """The middle by ratio, by difference where there is none; three digits are enough for a disturbance."""
    middle = math.sqrt(weaker * stronger) if weaker > 0 else stronger / 2
    return float(f"{middle:.3g}")


def sweep_points(steps: Sequence[_Step], clean: Looked) -> list[SweepPoint]:
    """With bounds that rise with the strength; one that was given up early keeps its own."""
    whole = [index for index, step in enumerate(steps) if len(step.looked.pictures) == len(clean.pictures)]
    bounds = {index: float(np.percentile(step.losses, 95.0)) for index, step in enumerate(steps)}
    if whole:
        risen = growing(np.stack([steps[index].losses for index in whole]))
        bounds |= {index: float(np.percentile(row, 95.0)) for index, row in zip(whole, risen, strict=True)}
    points = []
    for index, step in enumerate(steps):
        count = len(step.looked.pictures)
        ones = np.ones((1, count))
        f, f_clean = (float(one.f(ones)[0]) for one in (step.looked, clean))
        low, high = percentile_interval(step.drawn)
        qualities = step.looked.qualities
        points.append(SweepPoint(step.strength, f, low, high, f_clean - f, bounds[index], qualities))
    return points


def _step(strength: float, looked: Looked, clean: Looked, names: Sequence[str]) -> _Step:
    """The same pictures are drawn for both."""
    weights = group_weights(names[: len(looked.pictures)])
    drawn = looked.f(weights)
    return _Step(strength, looked, clean.f(weights) - drawn, drawn)

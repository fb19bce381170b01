"""How unlike the calibration pictures a part is, by what the vision encoder says of its tiles.

A tile is the mean of its image tokens. It gets its Mahalanobis distance from the tiles of the calibration
pictures (Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial
attacks", NeurIPS 2018): along the few directions in which those vary most with their own variances, across
them with one common variance (the probabilistic principal components of Tipping and Bishop, 1999: a shrunk
covariance that a few hundred tiles can fill). A part counts by the mean over its tiles, as far as that lies
above what so many tiles of a calibration picture have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import BundleError
from ..engines.engine import FloatArray

NUMBERS = ("residual", "tile_mean", "tile_spread", "part_spread", "limit", "quantile")


@dataclass(frozen=True)
class NoveltyModel:
    """What the tiles of the calibration pictures are like.

    `mean` [H], `directions` [k, H] orthonormal, `variances` [k], `residual`: variance in each of the other
    H - k directions; `tile_mean`, `tile_spread`: mean and standard deviation of the tiles' distances;
    `part_spread`: standard deviation of the parts beside that; `limit`: the score that counts as novelty 1,
    the `quantile` of calibration parts.
    """

    mean: FloatArray
    directions: FloatArray
    variances: FloatArray
    residual: float
    tile_mean: float
    tile_spread: float
    part_spread: float
    limit: float
    quantile: float

    def novelty(self, distances: float, tiles: int) -> float:
        """Of a part with the sum of its tiles' distances: above 1 it is unlike the calibration pictures; 0
        for one whose tiles are as near as theirs, and for no tiles.
        """
        return max(self.score(distances, tiles) / self.limit, 0.0)

    def score(self, distances: float, tiles: int) -> float:
        """How many standard deviations the mean distance of so many tiles lies above the common one."""
        if not tiles:
            return 0.0
        spread = math.sqrt(self.tile_spread**2 / tiles + self.part_spread**2)
        return (distances / tiles - self.tile_mean) / spread

    def tile_distances(self, tokens: FloatArray) -> npt.NDArray[np.float64]:
        """[tiles] of tokens [tiles, T, H]: root of the mean square deviation in standard deviations."""
        away = tokens.mean(axis=1, dtype=np.float32) - self.mean  # [tiles, H]
        along = away @ self.directions.T  # [tiles, k]
        across = np.maximum((away**2).sum(axis=-1) - (along**2).sum(axis=-1), 0.0)
        squares = (along**2 / self.variances).sum(axis=-1) + across / self.residual
        return np.asarray(np.sqrt(squares / tokens.shape[-1]), np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the `novelty` section of `judgement.json`, numbers to six digits."""
        arrays = {
            "mean": _six(self.mean),
            "directions": [_six(row) for row in self.directions],
            "variances": _six(self.variances),
        }
        return arrays | {name: float(f"{getattr(self, name):.6g}") for name in NUMBERS}

    @classmethod
    def from_json(cls, section: dict[str, Any], hidden: int) -> NoveltyModel:
        """The model that `to_json` wrote, for tokens of `hidden` numbers; BundleError on anything else."""
        try:
            model = cls(
                np.asarray(section["mean"], np.float32),
                np.asarray(section["directions"], np.float32).reshape(-1, hidden),
                np.asarray(section["variances"], np.float32),
                *(float(section[name]) for name in NUMBERS),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"the bundle's judgement has a broken novelty section ({error!r}); calibrate it anew"
            ) from error
        numbers = [getattr(model, name) for name in NUMBERS]
        arrays = (model.mean, model.directions, model.variances, np.asarray(numbers))
        fits = all(bool(np.isfinite(array).all()) for array in arrays)  # or every part would be as usual
        fits &= model.mean.shape == (hidden,) and len(model.variances) == len(model.directions)
        positive = min(model.limit, model.residual, model.tile_spread, *model.variances.tolist()) > 0
        if not (fits and positive):
            raise BundleError(
                f"the bundle's novelty section is not of this model (tokens of {hidden} numbers, its mean has"
                f" {model.mean.size}); calibrate it anew"
            )
        return model


class NoveltyMeter:
    """The novelty of one part, whose tiles come in chunks."""

    def __init__(self, model: NoveltyModel | None) -> None:
        self._model = model
        self._sum, self._tiles = 0.0, 0

    def see(self, tokens: FloatArray) -> None:
        """Some tiles' tokens of their last picture, [tiles, T, H]."""
        if self._model is not None:
            self._sum += float(self._model.tile_distances(tokens).sum())
            self._tiles += len(tokens)

    @property
    def novelty(self) -> float | None:
        """Of the tiles seen so far; None without a model."""
        return None if self._model is None else self._model.novelty(self._sum, self._tiles)


def _six(numbers: FloatArray) -> list[float]:
    return [float(f"{number:.6g}") for number in numbers]

"""How unlike the calibration pictures a part is, by what the vision encoder says of its tiles.

Every image token gets its Mahalanobis distance from the calibration pictures' tokens (Lee et al., "A simple
unified framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS 2018): along
the few directions in which those vary most with their own variances, across them with one common variance
(the probabilistic principal components of Tipping and Bishop, 1999: a shrunk covariance that a few hundred
tokens can fill). A tile counts by the quarter of its tokens that deviate most, a part by its worst tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import BundleError
from ..engines.engine import FloatArray

DEVIATING_SHARE = 0.25
"""Share of a tile's tokens that speak for it: what is strange is seldom the whole tile."""


@dataclass(frozen=True)
class NoveltyModel:
    """What the calibration pictures' tokens are like.

    `mean` [H], `directions` [k, H] orthonormal, `variances` [k], `residual`: variance in each of the other
    H - k directions; `limit`: the distance that counts as novelty 1, the `quantile` of calibration parts.
    """

    mean: FloatArray
    directions: FloatArray
    variances: FloatArray
    residual: float
    limit: float
    quantile: float

    def novelty(self, tokens: FloatArray) -> float:
        """Of a part's tokens [tiles, T, H]: above 1 it is unlike the calibration pictures; 0 for no tiles."""
        return max((float(one) for one in self.tile_distances(tokens)), default=0.0) / self.limit

    def tile_distances(self, tokens: FloatArray) -> npt.NDArray[np.float64]:
        """[tiles] distance of each tile, 1 for one that deviates as the average token does."""
        distances = np.sort(self.token_distances(tokens), axis=1)  # [tiles, T]
        most = max(1, round(DEVIATING_SHARE * tokens.shape[1]))
        return np.asarray(distances[:, -most:].mean(axis=1))

    def token_distances(self, tokens: FloatArray) -> npt.NDArray[np.float64]:
        """[tiles, T] root of the mean square deviation of each token, in standard deviations."""
        away = tokens.astype(np.float32) - self.mean  # [tiles, T, H]
        along = away @ self.directions.T  # [tiles, T, k]
        across = np.maximum((away**2).sum(axis=-1) - (along**2).sum(axis=-1), 0.0)
        squares = (along**2 / self.variances).sum(axis=-1) + across / self.residual
        return np.asarray(np.sqrt(squares / tokens.shape[-1]), np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the `novelty` section of `judgement.json`, numbers to six digits."""
        return {
            "mean": _six(self.mean),
            "directions": [_six(row) for row in self.directions],
            "variances": _six(self.variances),
            "residual": float(f"{self.residual:.6g}"),
            "limit": float(f"{self.limit:.6g}"),
            "quantile": self.quantile,
        }

    @classmethod
    def from_json(cls, section: dict[str, Any], hidden: int) -> NoveltyModel:
        """The model that `to_json` wrote, for tokens of `hidden` numbers; BundleError on anything else."""
        try:
            model = cls(
                np.asarray(section["mean"], np.float32),
                np.asarray(section["directions"], np.float32).reshape(-1, hidden),
                np.asarray(section["variances"], np.float32),
                float(section["residual"]),
                float(section["limit"]),
                float(section["quantile"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"the bundle's judgement has a broken novelty section ({error!r}); calibrate it anew"
            ) from error
        fits = model.mean.shape == (hidden,) and len(model.variances) == len(model.directions)
        if not (fits and model.limit > 0 and model.residual > 0 and bool((model.variances > 0).all())):
            raise BundleError(
                f"the bundle's novelty section is not of this model (tokens of {hidden} numbers, its mean has"
                f" {model.mean.size}); calibrate it anew"
            )
        return model


class NoveltyMeter:
    """The novelty of one part, whose tiles come in chunks; None without a model."""

    def __init__(self, model: NoveltyModel | None) -> None:
        self._model = model
        self.novelty: float | None = None if model is None else 0.0

    def see(self, tokens: FloatArray) -> None:
        """Some tiles' tokens of their last picture, [tiles, T, H]."""
        if self._model is not None and self.novelty is not None:
            self.novelty = max(self.novelty, self._model.novelty(tokens))


def _six(numbers: FloatArray) -> list[float]:
    return [float(f"{number:.6g}") for number in numbers]

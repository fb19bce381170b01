"""A lens that one picture of a board was taken through, without anybody taking its distortion out.

A homography bends no straight line; what a lens bends beyond it stays in the residuals of the corners, as a
pattern that grows with the square of the distance from the picture's middle. One coefficient more in the fit
shows it. It is not corrected with one picture, where it cannot be told from a board that is not flat; the
lengths that it makes wrong become a contribution of their own.
"""

from __future__ import annotations

import numpy as np

from ...runtime.judge.scale import Floats, mapped_points, slopes_of
from .budget import widened

LEAST_SIGMAS = 3.0
"""A coefficient that is not known better than that is scatter, and scatter is in the budget already."""
_INNER, _STRIPS = 0.8, 10
"""Lengths are compared between the middles of 10 x 10 cells of the picture's inner 80 %, where parts lie. In
the corners the error is larger: it grows with the square of the distance from the middle."""
_LEAST_LENGTH = 0.15  # of the picture's longer side: a shorter length says little about the whole
_ROUNDS = 10


def lens_left_in(
    plane: Floats, picture: Floats, theta: Floats, picture_wh: Floats
) -> tuple[float, Floats] | None:
    """(relative standard uncertainty of lengths, [n, 2] residuals without the lens); None without one.

    `plane` [n, 2] about -1 to 1; `picture` [n, 2] from the picture's middle, in its longer sides; `theta`
    [8]: the homography from plane to picture that fits best; `picture_wh`: its size in the same unit.
    """

    def seen(values: Floats) -> Floats:
        straight = mapped_points(plane, values[:8], with_camera=False)
        return np.asarray(_bent(straight, values[8]).ravel(), np.float64)

    found = np.append(theta, 0.0)
    steps = np.full(9, 1e-6)
    for _ in range(_ROUNDS):
        slope = slopes_of(seen, found, steps)
        found = found + np.linalg.lstsq(slope, picture.ravel() - seen(found), rcond=None)[0]
    left = (picture.ravel() - seen(found)).reshape(-1, 2)
    freedom = left.size - 9
    slope = slopes_of(seen, found, steps)
    variance = np.linalg.inv(slope.T @ slope)[8, 8] * float(np.sum(left**2)) / freedom
    if not abs(found[8]) > LEAST_SIGMAS * widened(freedom) * np.sqrt(variance):
        return None
    return _length_error(theta, found, picture_wh), left


def _length_error(theta: Floats, found: Floats, picture_wh: Floats) -> float:
    """Root mean square of what the plain homography gets lengths in the picture's inner 80 % wrong by."""
    side = _INNER * ((np.arange(_STRIPS) + 0.5) / _STRIPS - 0.5)
    points = np.stack(np.meshgrid(side * picture_wh[0], side * picture_wh[1]), axis=-1).reshape(-1, 2)
    first, second = np.triu_indices(len(points), 1)
    far = np.hypot(*(points[first] - points[second]).T) > _LEAST_LENGTH
    first, second = first[far], second[far]

    def lengths(places: Floats, forward: Floats) -> Floats:
        back = np.linalg.inv(np.append(forward, 1.0).reshape(3, 3))
        flat = mapped_points(places, (back / back[2, 2]).ravel()[:8], with_camera=False)
        return np.asarray(np.hypot(*(flat[first] - flat[second]).T), np.float64)

    true = lengths(_straightened(points, found[8]), found[:8])
    return float(np.sqrt(np.mean((lengths(points, theta) / true - 1.0) ** 2)))


def _bent(points: Floats, coefficient: float) -> Floats:
    return np.asarray(points * (1.0 + coefficient * np.sum(points**2, axis=1, keepdims=True)), np.float64)


def _straightened(points: Floats, coefficient: float) -> Floats:
    """The inverse of `_bent`, by fixed-point rounds."""
    straight = points
    for _ in range(30):
        straight = points / (1.0 + coefficient * np.sum(straight**2, axis=1, keepdims=True))
    return np.asarray(straight, np.float64)

"""Losses that can only grow with a disturbance, made so: what neighbouring strengths say counts together.

A stronger disturbance does not make a picture better. Taken one by one, the bound of a few hundred defects
jumps by a point when a single one is found or lost; a light of 0.8 then fails where half the light holds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def growing(losses: Floats) -> Floats:
    """[strengths, draws] the rising curve nearest to each draw's losses, the weakest strength first.

    Isotonic regression by its closed form: the largest, over the starts up to a strength, of the smallest
    mean, over the ends from it on (Barlow, Bartholomew, Bremner and Brunk, 1972).
    """
    count = len(losses)
    sums = np.concatenate([np.zeros((1, losses.shape[1])), np.cumsum(losses, axis=0)])
    risen = np.full_like(losses, -np.inf)
    for start in range(count):
        means = (sums[start + 1 :] - sums[start]) / np.arange(1, count - start + 1)[:, None]
        smallest = np.minimum.accumulate(means[::-1], axis=0)[::-1]  # over the ends from each place on
        risen[start:] = np.maximum(risen[start:], smallest)
    return risen

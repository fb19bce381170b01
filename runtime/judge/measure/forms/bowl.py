"""A dent as what it is: a bowl under light from one side, fitted to the shade that it throws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..signal import quantile
from ..window import Field, Mask, Window

Floats = npt.NDArray[np.float64]

RIM = 0.914
"""Where a bowl ends, as a share of the way to where its shade has vanished: there its slope is 0.39 of its
steepest. A bowl has no edge; this is the definition."""

_MOST_PIXELS = 450
_ROUNDS = 8
_BOX_PX, _BOX_SHARE = 3.0, 0.04  # k = 1: how far a side of the detector's box may lie from the rim
_LEAST_SHARE = 0.25  # of the variance in the box that the fitted bowl must explain


@dataclass(frozen=True)
class Bowl:
    """An ellipse in the window's pixels: where the fitted bowl ends.

    `axes_px` the half axes, longer first; `degrees` of the longer one; `u_axes_px`, `u_area_px2` standard
    uncertainties; `outline_xy` [n, 2].
    """

    centre_xy: tuple[float, float]
    axes_px: tuple[float, float]
    degrees: float
    u_axes_px: tuple[float, float]
    u_area_px2: float
    outline_xy: Floats

    def mask(self, shape: tuple[int, int]) -> Mask:
        """Pixels of the ellipse, bool [h, w]."""
        filled = np.zeros(shape, np.uint8)
        points = np.round((self.outline_xy - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(filled, [points], (1,), cv2.LINE_8, 4)
        return filled.astype(np.bool_)


def bowl_in_window(window: Window, background: Field) -> Bowl | None:
    """The bowl whose shade explains the window best; None where it explains too little.

    Shade of a bowl z = (1 - r^2)^2 goes with its slope: (1 - r^2) times the way towards the light; a bowl
    with a steeper wall is tried too. Position and shape (five numbers: the middle, and the triangle that
    makes the ellipse a circle) are sought by Levenberg and Marquardt, light and depth by least squares. The
    detector's box counts as a measurement of its own, a few pixels good.
    """
    fit, middle = _fit_of_window(window, background)
    if fit is None:
        return None
    start = np.array([0.0, 0.0, RIM / fit.half[0], 0.0, RIM / fit.half[1]])
    starts = (start + np.array([0, 0, 0, lean / fit.half.min(), 0]) for lean in (-0.35, 0.0, 0.35))
    place, cost = fit.sought(min(starts, key=lambda one: fit.cost(one, steep=False)), steep=False)
    other, cost_there = fit.sought(place, steep=True)
    steep = cost_there < cost
    if steep:
        place, other = other, place
    if fit.explained(place, steep=steep) < _LEAST_SHARE:
        return None
    # Where both bowls explain the shade alike, their difference is not known.
    doubt = math.exp(-min(abs(cost - cost_there) / 2, 50.0)) * (fit.sizes(other) - fit.sizes(place))
    u_sizes = np.sqrt(fit.variances(place, steep=steep) + doubt**2)
    into = np.linalg.inv(_shape(place)) * RIM
    turns = np.linspace(0, 2 * math.pi, 96, endpoint=False)
    outline = np.stack([np.cos(turns), np.sin(turns)], axis=1) @ into.T + place[:2] + middle
    axes, _, _ = np.linalg.svd(into)
    x, y = (place[:2] + middle).tolist()
    first, second, _ = fit.sizes(place).tolist()
    u_first, u_second, u_area = u_sizes.tolist()
    degrees = math.degrees(math.atan2(axes[1, 0], axes[0, 0])) % 180
    return Bowl((x, y), (first, second), degrees, (u_first, u_second), u_area, outline)


def _fit_of_window(window: Window, background: Field) -> tuple[_Fit | None, Floats]:
    """The pixels in and around the box, thinned out, and the middle [2] that they are counted from."""
    x1, y1, x2, y2 = window.tight
    half = np.array([max(x2 - x1, 4.0), max(y2 - y1, 4.0)]) / 2
    middle = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    grown = 1.25 * half + 4.0
    rows, columns = np.nonzero(window.reach | window.ring)
    near = (np.abs(columns + 0.5 - middle[0]) < grown[0]) & (np.abs(rows + 0.5 - middle[1]) < grown[1])
    rows, columns = rows[near], columns[near]
    if rows.size < 40:
        return None, middle
    stride = max(math.isqrt(rows.size // _MOST_PIXELS), 1)
    kept = (rows % stride == 0) & (columns % stride == 0)
    rows, columns = rows[kept], columns[kept]
    shade = window.pixels.mean(axis=2) / np.maximum(background.mean(axis=2), 1.0)
    noise = _noise(shade, window, float(half.min())) / stride
    calm = cv2.GaussianBlur(shade, (0, 0), 0.5 * stride)
    points = np.stack([columns + 0.5, rows + 0.5], axis=1) - middle
    return _Fit(points, calm[rows, columns].astype(np.float64), half, noise), middle


def _noise(shade: Field, window: Window, half_px: float) -> float:
    """The deviation of a pixel around the dent, times the root of the pixels that texture brings together."""
    sigma = min(max(0.2 * half_px, 1.5), 4.0)
    calm = np.asarray(cv2.GaussianBlur(shade, (0, 0), sigma), np.float32)
    around, calm_around = shade[window.ring], calm[window.ring]
    if around.size < 40:
        return 0.1
    alone = 4 * math.pi * sigma**2  # pixels that the blur brings together: of as many, noise has one
    return max(_spread(around), _spread(calm_around) * math.sqrt(alone), 1e-3)


def _spread(values: Field) -> float:
    return float(np.std(np.clip(values, quantile(values, 0.03), quantile(values, 0.97))))


def _shape(place: Floats) -> Floats:
    """The matrix [2, 2] that makes the bowl a circle of radius 1."""
    return np.array([[place[2], place[3]], [0.0, place[4]]])


def _reach(places: Floats) -> Floats:
    """How far the ellipses at `places` [k, 5] reach across and down from their middles, [k, 2]."""
    first, lean, second = places[:, 2], places[:, 3], places[:, 4]
    return np.stack([np.hypot(1.0 / first, lean / (first * second)), 1.0 / second], axis=1) * RIM


@dataclass(frozen=True)
class _Fit:
    """Pixels [n, 2] about the middle of the box, their shade [n], half the box's sides; `noise` is
    the deviation of the shade around, as of samples that know nothing of each other."""

    points: Floats
    shade: Floats
    half: Floats
    noise: float

    @property
    def scales(self) -> Floats:
        """By what each number of a place is measured."""
        size = float(self.half.mean())
        return np.array([size, size, 1 / size, 1 / size, 1 / size])

    def left(self, places: Floats, *, steep: bool) -> Floats:
        """Residuals [k, n + 4] at `places` [k, 5]: of the shade, of the box's sides, in their deviations."""
        x, y = self.points.T
        across, down = x - places[:, :1], y - places[:, 1:2]  # [k, n]
        u = places[:, 2:3] * across + places[:, 3:4] * down
        v = places[:, 4:5] * down
        inside = np.maximum(1.0 - u * u - v * v, 0.0)
        wall = inside * (1.5 - inside) if steep else inside
        basis = np.empty((len(places), 4, x.size))
        basis[:, 0], basis[:, 3] = 1.0, inside * inside
        np.multiply(wall, u, out=basis[:, 1])
        np.multiply(wall, v, out=basis[:, 2])
        gram = basis @ basis.transpose(0, 2, 1)
        gram += 1e-6 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(4)
        factors = np.linalg.solve(gram, (basis @ self.shade)[..., None])  # [k, 4, 1]
        rest = (self.shade - (factors.transpose(0, 2, 1) @ basis)[:, 0]) / self.noise
        reach = _reach(places)
        middle = places[:, :2]
        sides = np.concatenate([middle - reach + self.half, middle + reach - self.half], axis=1)
        return np.concatenate([rest, sides / np.tile(_BOX_PX + _BOX_SHARE * 2 * self.half, 2)], axis=1)

    def slopes(self, place: Floats, rest: Floats, *, steep: bool) -> Floats:
        """How the residuals [n + 4] at a place change with each of its numbers, in its scale: [n + 4, 5]."""
        moved = place + np.diag(self.scales * 1e-4)
        return (self.left(moved, steep=steep) - rest).T / 1e-4

    def sought(self, place: Floats, *, steep: bool) -> tuple[Floats, float]:
        """The place of least squares from a start, and its sum."""
        damping, rest = 1e-2, self.left(place[None], steep=steep)[0]
        cost = float(rest @ rest)
        for _ in range(_ROUNDS):
            slopes = self.slopes(place, rest, steep=steep)
            normal, gradient = slopes.T @ slopes, slopes.T @ rest
            for _ in range(4):
                move = -np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-9), gradient)
                trial = place + np.clip(move, -0.3, 0.3) * self.scales
                if trial[2] > 0 and trial[4] > 0:
                    rest_there = self.left(trial[None], steep=steep)[0]
                    cost_there = float(rest_there @ rest_there)
                    if cost_there < cost:
                        break
                damping *= 6.0
            else:
                break
            gained, place, rest, cost = cost - cost_there, trial, rest_there, cost_there
            damping = max(damping / 6.0, 1e-6)
            if gained < 2e-3 * cost:
                break
        return place, cost

    def cost(self, place: Floats, *, steep: bool) -> float:
        """The sum of squares at a place."""
        rest = self.left(place[None], steep=steep)[0]
        return float(rest @ rest)

    def explained(self, place: Floats, *, steep: bool) -> float:
        """The share of the shade's variance within the box that the bowl explains."""
        rest = self.left(place[None], steep=steep)[0, :-4] * self.noise
        within = (np.abs(self.points / self.half) < 1.0).all(axis=1)
        whole = self.shade[within] - quantile(self.shade, 0.5)
        return 1.0 - float(np.mean(rest[within] ** 2)) / max(float(np.mean(whole**2)), 1e-12)

    def variances(self, place: Floats, *, steep: bool) -> Floats:
        """Of the half axes and the area [3]."""
        slopes = self.slopes(place, self.left(place[None], steep=steep)[0], steep=steep)
        covariance = np.linalg.inv(slopes.T @ slopes + 1e-9 * np.eye(5))
        steps = np.diag(self.scales * 1e-4)
        moved = [(self.sizes(place + step) - self.sizes(place - step)) / 2e-4 for step in steps]
        jacobian = np.stack(moved, axis=1)  # [3, 5]
        return np.asarray(np.einsum("ij,jk,ik->i", jacobian, covariance, jacobian))

    def sizes(self, place: Floats) -> Floats:
        """Half axes, longer first, and the area."""
        axes = np.linalg.svd(np.linalg.inv(_shape(place)) * RIM, compute_uv=False)
        return np.array([axes[0], axes[1], math.pi * axes[0] * axes[1]])

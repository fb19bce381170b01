"""Millimetres per pixel: a plain factor, or a map that takes lens distortion and perspective out.

`orinspect calibrate scale` writes the file that is read here, `orinspect.scale/1.0`; docs/scale.md explains
it. Picture coordinates have pixel centres at integer + 0.5, so that a box x1..x2 is x2 - x1 pixels wide.
Every uncertainty in this file is a standard one (k = 1) unless its name says expanded (JCGM 100).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ScaleError
from ..tables import json_value

SCALE_SCHEMA = "orinspect.scale/1.0"
COVERAGE_FACTOR = 2.0
"""k of every expanded uncertainty: about 95 % (JCGM 100, 6.3)."""

Floats = npt.NDArray[np.float64]
Matrix = tuple[tuple[float, ...], ...]
_UNDISTORT_ROUNDS = 50
_UNDISTORT_DONE = 1e-12  # of the normalised picture plane: a millionth of a pixel at any focal length


@dataclass(frozen=True)
class PixelScale:
    """From picture points to millimetres, and how far the result can be trusted.

    mm_per_px: at the picture's centre, the root of what an area scales with; standard_uncertainty: of it, in
    mm/px with k = 1. camera_matrix [3, 3] and distortion (k1, k2, p1, p2, k3) take the lens out, homography
    [3, 3] takes undistorted picture points to the measuring plane in mm; without them the scale is a plain
    factor. covariance [n, n] belongs to `parameters()`; common_uncertainty is the relative part that all
    lengths share (the known dimension, its temperature). ScaleError when a value makes no sense.
    """

    mm_per_px: float
    standard_uncertainty: float = 0.0
    calibration_id: str | None = None
    calibrated_at: str | None = None
    expires_at: str | None = None
    method: str = "given"
    camera_id: str | None = None
    picture_wh: tuple[int, int] | None = None
    camera_matrix: Matrix | None = None
    distortion: tuple[float, ...] = ()
    homography: Matrix | None = None
    covariance: Matrix | None = None
    common_uncertainty: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mm_per_px) and self.mm_per_px > 0):
            raise ScaleError(f"a pixel scale of {self.mm_per_px} mm/px; it must be more than 0")
        if not (math.isfinite(self.standard_uncertainty) and self.standard_uncertainty >= 0):
            raise ScaleError(
                f"a pixel scale's uncertainty of {self.standard_uncertainty} mm/px; it must be 0 or more"
            )

    @property
    def relative_uncertainty(self) -> float:
        """Standard uncertainty of a length at the picture's centre, as a share of the length."""
        return self.standard_uncertainty / self.mm_per_px

    @property
    def expanded_uncertainty(self) -> float:
        """Expanded uncertainty of `mm_per_px` in mm/px, k = COVERAGE_FACTOR."""
        return COVERAGE_FACTOR * self.standard_uncertainty

    def points_mm(self, points_xy: npt.ArrayLike) -> Floats:
        """[n, 2] picture points as [n, 2] points of the measuring plane in mm.

        The plane's axes lie along the picture's at its centre. A point beyond the plane's horizon is NaN.
        """
        points = np.asarray(points_xy, np.float64).reshape(-1, 2)
        if self.homography is None:
            return points * self.mm_per_px
        return mapped_points(points, self.parameters(), with_camera=self.camera_matrix is not None)

    def length_mm(self, start_xy: Sequence[float], end_xy: Sequence[float]) -> tuple[float, float]:
        """Distance of two picture points in mm, and the standard uncertainty that the scale gives it."""
        pair = np.asarray([start_xy, end_xy], np.float64)
        length = _distance(self.points_mm(pair))
        if self.covariance is None:
            return length, length * self.relative_uncertainty
        parameters, with_camera = self.parameters(), self.camera_matrix is not None
        covariance = np.asarray(self.covariance, np.float64)
        slope = slopes_of(
            lambda p: np.array([_distance(mapped_points(pair, p, with_camera=with_camera))]),
            parameters,
            np.sqrt(np.diag(covariance)) / 100,
        )[0]
        variance = float(slope @ covariance @ slope)
        return length, math.hypot(math.sqrt(max(variance, 0.0)), self.common_uncertainty * length)

    def mm_per_px_at(self, x: float, y: float) -> float:
        """The scale at one picture point: the root of the area in mm2 that a pixel has there."""
        step = 0.5
        left, right, up, down = self.points_mm([[x - step, y], [x + step, y], [x, y - step], [x, y + step]])
        (a, b), (c, d) = right - left, down - up
        return math.sqrt(abs(float(a * d - b * c)))

    def parameters(self) -> Floats:
        """[8] homography (its last entry is 1), then with a camera [9] fx, fy, cx, cy, k1, k2, p1, p2, k3."""
        if self.homography is None:
            return np.empty(0)
        plane = np.asarray(self.homography, np.float64).reshape(9)
        parts = [plane[:8] / plane[8]]
        if self.camera_matrix is not None:
            (fx, _, cx), (_, fy, cy) = self.camera_matrix[0], self.camera_matrix[1]
            parts += [np.array([fx, fy, cx, cy]), np.resize([*self.distortion, 0, 0, 0, 0, 0], 5)]
        return np.concatenate(parts).astype(np.float64)

    def to_json(self, evidence: Mapping[str, Any] | None = None) -> str:
        """The text of a scale file; `evidence` (residuals, budget, pictures) is kept and hashed with it."""
        table = {"schema": SCALE_SCHEMA, **_table_of(self), **(evidence or {})}
        return json.dumps({"id": scale_id(table), **table}, indent=2, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, where: str = "scale.json") -> PixelScale:
        """The scale in a file that `to_json` wrote; ScaleError, starting with `where`, on anything else."""
        try:
            table = json_value(text)
        except ValueError as error:
            raise ScaleError(
                f"{where}: not JSON ({error}); give a file of `orinspect calibrate scale`"
            ) from None
        if not isinstance(table, dict) or table.get("schema") != SCALE_SCHEMA:
            found = table.get("schema") if isinstance(table, dict) else type(table).__name__
            raise ScaleError(
                f"{where}: schema {found!r}, this version reads {SCALE_SCHEMA!r}; calibrate again"
            )
        stated = table.pop("id", None)
        try:
            fitting = scale_id(table)
        except ValueError as error:  # half a character pair, which no text can hold
            raise ScaleError(f"{where}: {error!r:.80}; calibrate again") from None
        if stated != fitting:
            raise ScaleError(
                f"{where}: its id {stated!r} does not fit its content {fitting!r}: it was altered"
                " after the calibration; calibrate again"
            )
        try:
            return _scale_from(table, stated)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise ScaleError(f"{where}: {error!r}; calibrate again") from None


def plain_scale(mm_per_px: float, standard_uncertainty: float = 0.0) -> PixelScale:
    """A factor without a calibration behind it: the recipe's or the frame's own."""
    return PixelScale(mm_per_px, standard_uncertainty)


def read_scale(path: str | Path) -> PixelScale:
    """The scale in a file; ScaleError names the file and what is wrong with it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ScaleError(
            f"{path}: cannot be read ({error.strerror}); write it with `orinspect calibrate scale`"
        ) from error
    except UnicodeDecodeError:
        raise ScaleError(f"{path}: not text; give a file of `orinspect calibrate scale`") from None
    return PixelScale.from_json(text, str(path))


def scale_problem(
    scale: PixelScale,
    *,
    unix_s: float,
    camera_id: str | None = None,
    picture_wh: tuple[int, int] | None = None,
) -> str | None:
    """Why this scale must not be used for a picture, in a sentence; None when nothing speaks against it.

    `unix_s`: the clock, synchronised or not. A clock that stands before the calibration is wrong, because
    time has not run backwards since: the calibration's own date is then the best that is known, and it has
    not expired by then. A clock beyond the expiry counts, synchronised or not.
    """
    if scale.expires_at is not None:
        known = unix_s if scale.calibrated_at is None else max(unix_s, _unix_s(scale.calibrated_at))
        if known >= _unix_s(scale.expires_at):
            return (
                f"the calibration {scale.calibration_id} expired at {scale.expires_at}; calibrate again"
            )
    if camera_id is not None and scale.camera_id is not None and camera_id != scale.camera_id:
        return (
            f"the calibration {scale.calibration_id} belongs to camera {scale.camera_id!r}, this picture to"
            f" {camera_id!r}; calibrate this camera"
        )
    if picture_wh is not None and scale.picture_wh is not None and picture_wh != scale.picture_wh:
        made, is_now = ("x".join(map(str, size)) for size in (scale.picture_wh, picture_wh))
        return (
            f"the calibration {scale.calibration_id} was made with {made} pictures, this one is {is_now};"
            " calibrate with the size that is inspected"
        )
    return None


def scale_id(table: Mapping[str, Any]) -> str:
    """The id of a scale file: the hash of everything in it but the id."""
    text = json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return "scale-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def mapped_points(points_xy: Floats, parameters: Floats, *, with_camera: bool) -> Floats:
    """[n, 2] picture points to mm by the flat `PixelScale.parameters`; NaN beyond the plane's horizon, and
    where the parameters are so large that nothing can be said."""
    x, y = points_xy[:, 0], points_xy[:, 1]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if with_camera:
            x, y = _undistorted(x, y, parameters[8:])
        h = parameters[:8]
        depth = h[6] * x + h[7] * y + 1.0
        depth = np.where(depth > 0, depth, np.nan)
        mapped = [(h[0] * x + h[1] * y + h[2]) / depth, (h[3] * x + h[4] * y + h[5]) / depth]
    points = np.stack(mapped, axis=1)
    return np.where(np.isfinite(points), points, np.nan)


def slopes_of(function: Callable[[Floats], Floats], parameters: Floats, steps: Floats) -> Floats:
    """[m, n] central differences of a function of [n] parameters that gives [m] values.

    A parameter whose step is 0 is known: its column is 0.
    """
    columns = []
    for index, step in enumerate(steps):
        moved = np.zeros_like(parameters)
        moved[index] = step
        rise = function(parameters + moved) - function(parameters - moved)
        columns.append(rise / (2 * step) if step > 0 else np.zeros_like(rise))
    return np.stack(columns, axis=1)


def _undistorted(x: Floats, y: Floats, camera: Floats) -> tuple[Floats, Floats]:
    """Picture points without the lens's distortion (the model of OpenCV), by fixed-point rounds."""
    fx, fy, cx, cy, k1, k2, p1, p2, k3 = camera
    u, v = (x - cx) / fx, (y - cy) / fy
    a, b = u, v
    for _ in range(_UNDISTORT_ROUNDS):
        r2 = a * a + b * b
        radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
        new_a = (u - 2 * p1 * a * b - p2 * (r2 + 2 * a * a)) / radial
        new_b = (v - p1 * (r2 + 2 * b * b) - 2 * p2 * a * b) / radial
        moved = float(np.max(np.abs(np.concatenate([new_a - a, new_b - b])), initial=0.0))
        a, b = new_a, new_b
        if moved < _UNDISTORT_DONE:
            break
    return a * fx + cx, b * fy + cy


def _distance(pair_mm: Floats) -> float:
    return float(np.hypot(*(pair_mm[1] - pair_mm[0])))


def _unix_s(moment: str) -> float:
    """Seconds since 1970 of an RFC 3339 time in UTC."""
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def _table_of(scale: PixelScale) -> dict[str, Any]:
    """What the file keeps of a scale; its id is the hash of that."""
    table = dataclasses.asdict(scale)
    created_at, _ = table.pop("calibrated_at"), table.pop("calibration_id")
    table["expanded_uncertainty"], table["k"] = scale.expanded_uncertainty, COVERAGE_FACTOR
    return {"created_at": created_at, **table}


def _scale_from(table: Mapping[str, Any], calibration_id: str) -> PixelScale:
    """The scale in a table; a KeyError, TypeError or ValueError says what it lacks."""
    values = {
        entry.name: table["created_at" if entry.name == "calibrated_at" else entry.name]
        for entry in dataclasses.fields(PixelScale)
        if entry.name != "calibration_id"
    }
    for name, shape in (("camera_matrix", (3, 3)), ("homography", (3, 3)), ("covariance", None)):
        if values[name] is not None:
            rows = np.asarray(values[name], np.float64)
            if rows.ndim != 2 or not np.isfinite(rows).all() or shape not in (None, rows.shape):
                raise ValueError(f"{name} has the shape {list(rows.shape)}")
            values[name] = tuple(tuple(row) for row in rows.tolist())
    values["distortion"] = tuple(float(value) for value in values["distortion"])
    if values["picture_wh"] is not None:
        width, height = values["picture_wh"]
        values["picture_wh"] = (int(width), int(height))
    for name in ("calibrated_at", "expires_at"):
        if values[name] is not None:
            _unix_s(values[name])
    scale = PixelScale(**values, calibration_id=calibration_id)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        parameters = scale.parameters()
    if not np.isfinite(parameters).all():
        raise ValueError("the homography maps the picture's corner nowhere")
    count = parameters.size
    if scale.covariance is not None and (len(scale.covariance), len(scale.covariance[0])) != (count, count):
        raise ValueError(f"covariance has {len(scale.covariance)} rows for {count} parameters")
    return scale

"""`orinspect calibrate scale`: which way is asked for, the pictures, and the file that is written."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ... import __version__
from ...runtime.capture.clock import SystemClock
from ...runtime.capture.frame import read_picture
from ...runtime.errors import PictureError, UsageError
from ...runtime.judge.scale import COVERAGE_FACTOR, PixelScale
from ...runtime.report import timestamp
from .boards import Board
from .budget import Dimension, combined
from .ways import (
    Finding,
    NamedPicture,
    length_measurer,
    scale_from_board,
    scale_from_diameter,
    scale_from_length,
)

DAY_S = 86_400.0
LONGEST_DAYS = 36_525.0
"""A hundred years: a scale that outlives its camera is a slip of the keyboard."""
FEWEST_CORNERS = 3
"""Inner corners of a checkerboard across and down; OpenCV finds no smaller one."""
# way -> the options that it needs, the first names the dimension
_WAYS: dict[str, tuple[str, ...]] = {
    "diameter_mm": ("diameter_mm",),
    "points": ("length_mm",),
    "edges": ("length_mm",),
    "fiducials": ("distance_mm",),
    "charuco": ("square_mm", "marker_mm"),
    "checkerboard": ("square_mm",),
}
_DIMENSIONS = ("diameter_mm", "length_mm", "distance_mm", "square_mm", "marker_mm")


def calibrate_scale(arguments: argparse.Namespace, clock: SystemClock | None = None) -> dict[str, Any]:
    """Calibrate, write the file atomically, and give its table.

    UsageError for options that do not belong together, PictureError for pictures that cannot be read or
    differ in size, ScaleError when the fit is too bad; then no file is written.
    """
    way = _way_of(arguments)
    out: Path = arguments.out
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is not a folder; create it, or give another -o")
    pictures = _pictures(arguments.pictures)
    dimension = Dimension(
        getattr(arguments, _WAYS[way][0]),
        arguments.tolerance_mm,
        arguments.temperature_c,
        arguments.temperature_tolerance_c,
        arguments.expansion_ppm,
    )
    finding = _finding(way, pictures, dimension, arguments)
    clock = clock or SystemClock()
    now = clock.unix_s()
    height, width = pictures[0].grey.shape
    scale = scale_of_finding(finding, (width, height))
    scale = dataclasses.replace(
        scale,
        calibrated_at=timestamp(now),
        expires_at=timestamp(now + arguments.valid_days * DAY_S),
        camera_id=arguments.camera_id,
    )
    text = scale.to_json(
        {
            **_evidence(finding, dimension),
            "clock_synchronised": clock.synchronised(),
            "sha256": {path.name: _sha256(path) for path in arguments.pictures},
        }
    )
    _write(out, text)
    table: dict[str, Any] = json.loads(text)
    return table


def scale_text(table: dict[str, Any]) -> str:
    """A short table of a calibration for the terminal."""
    residual = "nothing was fitted"
    if table["residual_px"] is not None:
        residual = f"{table['residual_px']:.3f} px = {table['residual_mm']:.5f} mm"
    share = table["expanded_uncertainty"] / table["mm_per_px"]
    width, height = table["picture_wh"]
    scale = f"{table['mm_per_px']:.8f} mm/px +- {table['expanded_uncertainty']:.8f}"
    lines = [
        f"{table['id']}  by {table['method']}, {width}x{height}, camera {table['camera_id'] or 'not named'}",
        f"scale     {scale} ({share:.4%}, k = {table['k']:g})",
        f"residual  {residual}",
        f"made      {table['created_at']}, expires {table['expires_at']}",
        "budget    (relative standard uncertainty)",
        *(f"  {one['name']:13} {one['relative']:.2e}  {one['source']}" for one in table["budget"]),
        *(f"not in it {sentence}" for sentence in table["not_in_budget"]),
        *(f"note      {sentence}" for sentence in table["notes"]),
    ]
    return "\n".join(lines)


def _way_of(arguments: argparse.Namespace) -> str:
    """The one way that is asked for; UsageError when there is none, or more than one."""
    given = {name for name in (*_WAYS, *_DIMENSIONS) if getattr(arguments, name) is not None}
    ways = [name for name in _WAYS if name in given]
    if len(ways) != 1:
        found = " and ".join(_option(name) for name in ways) or "none"
        raise UsageError(
            f"exactly one of {', '.join(_option(name) for name in _WAYS)} says what the pictures show; given:"
            f" {found}"
        )
    way = ways[0]
    missing = [name for name in _WAYS[way] if name not in given]
    if missing:
        raise UsageError(f"{_option(way)} needs {' and '.join(_option(name) for name in missing)}")
    foreign = sorted(given - {way, *_WAYS[way]})
    if foreign:
        raise UsageError(f"{_option(foreign[0])} does not belong to {_option(way)}; leave it out")
    for name in ("points", "edges"):
        if (numbers := getattr(arguments, name)) is not None and len(numbers) != 4:
            raise UsageError(f"{_option(name)} takes X1,Y1,X2,Y2, four numbers; given: {len(numbers)}")
    seeds = arguments.fiducials or []
    if len(seeds) not in (0, 2) or any(len(seed) != 2 for seed in seeds):
        raise UsageError("--fiducials takes two places X,Y X,Y, or nothing and then they are found")
    if arguments.charuco is not None and not arguments.marker_mm < arguments.square_mm:
        raise UsageError(
            f"--marker-mm {arguments.marker_mm:g} is not smaller than --square-mm {arguments.square_mm:g}"
        )
    _check_ranges(arguments)
    return way


def _check_ranges(arguments: argparse.Namespace) -> None:
    """UsageError for a board or a date that cannot be."""
    if arguments.checkerboard is not None and min(arguments.checkerboard) < FEWEST_CORNERS:
        columns, rows = arguments.checkerboard
        raise UsageError(
            f"--checkerboard {columns}x{rows} counts INNER corners, at least {FEWEST_CORNERS} across and down"
        )
    if arguments.valid_days > LONGEST_DAYS:
        raise UsageError(f"--valid-days is {arguments.valid_days:g}; give at most {LONGEST_DAYS:g}")


def _finding(
    way: str, pictures: Sequence[NamedPicture], dimension: Dimension, arguments: argparse.Namespace
) -> Finding:
    if way == "diameter_mm":
        return scale_from_diameter(pictures, dimension)
    if way in ("charuco", "checkerboard"):
        marker = arguments.marker_mm if way == "charuco" else None
        columns_rows = arguments.charuco or arguments.checkerboard
        board = Board(columns_rows, dimension.nominal_mm, marker, arguments.dictionary)
        return scale_from_board(pictures, board, dimension)
    measured = length_measurer(
        points=arguments.points,
        tolerance_px=arguments.point_tolerance_px,
        edges=arguments.edges,
        marks=arguments.fiducials or (),
    )
    return scale_from_length(way, pictures, dimension, measured)


def _pictures(paths: Sequence[Path]) -> list[NamedPicture]:
    """The pictures in grey; PictureError when one cannot be read or they are not of one size."""
    found = []
    for path in paths:
        picture = read_picture(path)
        grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        found.append(NamedPicture(path.name, np.asarray(grey, np.uint8)))
        if found[-1].grey.shape != found[0].grey.shape:
            (h, w), (h0, w0) = found[-1].grey.shape, found[0].grey.shape
            raise PictureError(
                f"{path} is {w}x{h}, {paths[0]} is {w0}x{h0}; a calibration takes pictures of one camera in"
                " the size that is inspected"
            )
    return found


def scale_of_finding(finding: Finding, picture_wh: tuple[int, int]) -> PixelScale:
    """The scale without its dates."""
    relative, plane = combined(finding.budget), finding.plane
    scale = PixelScale(
        finding.mm_per_px, finding.mm_per_px * relative, method=finding.method, picture_wh=picture_wh
    )
    if plane is None:
        return scale
    return dataclasses.replace(
        scale,
        camera_matrix=plane.camera_matrix,
        distortion=plane.distortion,
        homography=plane.homography,
        covariance=tuple(tuple(row) for row in plane.covariance.tolist()),
        # what the corners contribute follows from the covariance, place by place
        common_uncertainty=combined([one for one in finding.budget if one.name != "corners"]),
    )


def _evidence(finding: Finding, dimension: Dimension) -> dict[str, Any]:
    """What the file keeps beside the scale: how it came about, so that it can be judged later."""
    residual = finding.residual_px
    return {
        "tool": {"name": "orinspect", "version": __version__, "opencv": cv2.__version__},
        "dimension": dataclasses.asdict(dimension),
        "residual_px": residual,
        "residual_mm": None if residual is None else residual * finding.mm_per_px,
        "relative_expanded_uncertainty": COVERAGE_FACTOR * combined(finding.budget),
        "budget": [dataclasses.asdict(one) for one in finding.budget],
        "not_in_budget": list(finding.not_in_budget),
        "notes": list(finding.notes),
        "pictures": list(finding.rows),
        "distance_mm": None if finding.plane is None else finding.plane.distance_mm,
    }


def _write(out: Path, text: str) -> None:
    """Write the file whole or not at all."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")

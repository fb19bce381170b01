"""How true `calibrate scale` is: known things rendered through known cameras, the stated uncertainty tested.

python -m orinspect.examples.scale.measure [--draws 200] [--seed 1] [--json] [--way NAME ...]

Synthetic renders only. Each draw throws camera, blur, noise, tone curve and the thing's true size within its
tolerance, calibrates as the command does, and asks for the scale at the picture's centre and for the length
between two thrown points of the picture. A coverage is the share of draws whose error lies within the stated
expanded uncertainty (k = 2); it should be 95 %.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...calibration.scale.boards import Board
from ...calibration.scale.budget import Dimension
from ...calibration.scale.command import scale_of_finding
from ...calibration.scale.ways import (
    Finding,
    NamedPicture,
    length_measurer,
    scale_from_board,
    scale_from_diameter,
    scale_from_length,
)
from ...runtime.errors import ScaleError
from .render import Exposure, KnownView, Pattern, bar, charuco, checkerboard, disc, marks, rendered

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

SIZE_WH = (640, 480)
TOLERANCE = 0.05 / 120  # of the part of the seed case
TOLERANCE_OF_MARKS = 5e-5
CHARUCO = ((7, 5), 10.0, 7.0, "DICT_4X4_50")
CHECKERBOARD = ((9, 6), 7.0)
LENS_PICTURES = 8


@dataclass(frozen=True)
class Draw:
    """One thrown calibration: what was found, and the camera that it was found through."""

    finding: Finding
    view: KnownView


@dataclass(frozen=True)
class Row:
    """Errors of one way over its draws, each beside the stated standard uncertainty (relative)."""

    way: str
    centre: Floats
    centre_stated: Floats
    length: Floats
    length_stated: Floats
    refused: int

    def table(self) -> dict[str, float | str | int]:
        """Shares, and root mean squares in parts per million."""
        return {
            "way": self.way,
            "draws": len(self.centre),
            "refused": self.refused,
            "centre_ppm": _rms(self.centre) * 1e6,
            "centre_stated_ppm": _rms(self.centre_stated) * 1e6,
            "centre_coverage": _covered(self.centre, self.centre_stated),
            "length_ppm": _rms(self.length) * 1e6,
            "length_stated_ppm": _rms(self.length_stated) * 1e6,
            "length_coverage": _covered(self.length, self.length_stated),
        }


def throw_diameter(generator: np.random.Generator, seed: int) -> Draw:
    """A disc of 60 to 110 mm, known as well as 120 +-0.05 mm, with up to six glints on its edge."""
    nominal = float(generator.uniform(60, 110))
    tolerance = nominal * TOLERANCE
    true = nominal + float(generator.uniform(-tolerance, tolerance))
    view, exposure = _straight_view(generator), _exposure(generator)
    picture = _picture(view, disc(true), exposure, seed, int(generator.integers(0, 7)))
    finding = scale_from_diameter([picture], Dimension(nominal, tolerance))
    return Draw(finding, view)


def throw_edges(generator: np.random.Generator, seed: int) -> Draw:
    """A bar of 60 to 110 mm from edge to edge, the points put within 4 px of the edges."""
    nominal = float(generator.uniform(60, 110))
    tolerance = nominal * TOLERANCE
    true = nominal + float(generator.uniform(-tolerance, tolerance))
    view, exposure = _straight_view(generator), _exposure(generator)
    picture = _picture(view, bar(true, 50), exposure, seed)
    ends = view.picture_points([[-true / 2, 0], [true / 2, 0]]) + generator.uniform(-4, 4, (2, 2))
    measured = length_measurer(edges=tuple(ends.ravel()))
    finding = scale_from_length("edges", [picture], Dimension(nominal, tolerance), measured)
    return Draw(finding, view)


def throw_fiducials(generator: np.random.Generator, seed: int) -> Draw:
    """Two marks of 5 to 9 mm, 60 to 90 mm apart, found without being named."""
    nominal = float(generator.uniform(60, 90))
    tolerance = nominal * TOLERANCE_OF_MARKS
    true = nominal + float(generator.uniform(-tolerance, tolerance))
    view, exposure = _straight_view(generator), _exposure(generator)
    picture = _picture(view, marks(true, float(generator.uniform(5, 9))), exposure, seed)
    finding = scale_from_length("fiducials", [picture], Dimension(nominal, tolerance), length_measurer())
    return Draw(finding, view)


def board_thrower(kind: str, pictures: int, lens: float) -> Callable[[np.random.Generator, int], Draw]:
    """Throws a board: `pictures` views through a lens of about k1 = `lens`."""

    def throw(generator: np.random.Generator, seed: int) -> Draw:
        bend = np.zeros(5)
        if lens:
            bend[:4] = generator.normal([lens, 0.03, 0, 0], [abs(lens) / 4, 0.02, 5e-4, 5e-4])
        views = [_board_view(generator, bend, is_plane=not index) for index in range(pictures)]
        exposure = _exposure(generator)
        if kind == "charuco":
            board, pattern = Board(*CHARUCO), charuco(*CHARUCO)
        else:
            board, pattern = Board(*CHECKERBOARD), checkerboard(*CHECKERBOARD)
        seen = [_picture(view, pattern, exposure, seed * 100 + i) for i, view in enumerate(views)]
        return Draw(scale_from_board(seen, board, Dimension(board.square_mm)), views[0])

    return throw


WAYS: dict[str, Callable[[np.random.Generator, int], Draw]] = {
    "diameter": throw_diameter,
    "edges": throw_edges,
    "fiducials": throw_fiducials,
    "charuco": board_thrower("charuco", 1, 0.0),
    "checkerboard": board_thrower("checkerboard", 1, 0.0),
    "checkerboard, lens left in": board_thrower("checkerboard", 1, -0.1),
    "charuco with lens": board_thrower("charuco", LENS_PICTURES, -0.15),
    "checkerboard with lens": board_thrower("checkerboard", LENS_PICTURES, -0.15),
}


def measured_row(way: str, draws: int, seed: int) -> Row:
    """Throw and calibrate `draws` times."""
    generator = np.random.default_rng([seed, *way.encode()])
    rows: list[tuple[float, float, float, float]] = []
    refused = 0
    for number in range(draws):
        try:
            draw = WAYS[way](generator, int(generator.integers(1 << 30)) + number)
        except ScaleError:
            refused += 1
            continue
        rows.append(_errors(draw, generator))
    centre, centre_stated, length, length_stated = np.array(rows, np.float64).reshape(-1, 4).T
    return Row(way, centre, centre_stated, length, length_stated, refused)


def _errors(draw: Draw, generator: np.random.Generator) -> tuple[float, float, float, float]:
    """Relative error and stated relative uncertainty at the centre, and of a thrown length."""
    scale = scale_of_finding(draw.finding, SIZE_WH)
    centre = np.array(SIZE_WH) / 2
    around = centre + np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])
    left, right, up, down = draw.view.plane_points(around)
    true = float(np.sqrt(abs(np.linalg.det(np.stack([right - left, down - up])))))
    points = generator.uniform(0.1, 0.9, (2, 2)) * SIZE_WH
    while np.hypot(*(points[1] - points[0])) < 100:
        points = generator.uniform(0.1, 0.9, (2, 2)) * SIZE_WH
    first, second = draw.view.plane_points(points)
    true_length = float(np.hypot(*(second - first)))
    length, uncertainty = scale.length_mm(tuple(points[0]), tuple(points[1]))
    return (
        scale.mm_per_px / true - 1,
        scale.relative_uncertainty,
        length / true_length - 1,
        uncertainty / true_length,
    )


def _straight_view(generator: np.random.Generator) -> KnownView:
    """A camera that looks straight down, which a plain factor takes for granted."""
    return KnownView(
        SIZE_WH,
        distance_mm=float(generator.uniform(395, 420)),
        spin=float(generator.normal(0, 0.05)),
        shift_mm=(float(generator.uniform(-4, 4)), float(generator.uniform(-4, 4))),
    )


def _board_view(generator: np.random.Generator, bend: Floats, *, is_plane: bool) -> KnownView:
    """The measuring plane, tilted by some degrees as it happens; or a picture that is tilted on purpose."""
    tilt = generator.normal(0, 0.06, 2)
    if not is_plane:
        tilt = generator.uniform(0.2, 0.5, 2) * generator.choice([-1, 1], 2)
    k1, k2, p1, p2, k3 = bend.tolist()
    return KnownView(
        SIZE_WH,
        focal_px=1000.0,
        distance_mm=float(generator.uniform(130, 150)),
        tilt_xy=(float(tilt[0]), float(tilt[1])),
        spin=float(generator.uniform(-0.3, 0.3)),
        shift_mm=(float(generator.uniform(-3, 3)), float(generator.uniform(-3, 3))),
        distortion=(k1, k2, p1, p2, k3),
    )


def _exposure(generator: np.random.Generator) -> Exposure:
    """Blur 0.5 to 2 px, noise 0.5 to 4 grey levels, a tone curve of gamma 0.9 to 1.1."""
    blur, noise, gamma = generator.uniform([0.5, 0.5, 0.9], [2.0, 4.0, 1.1])
    return Exposure(blur_px=float(blur), noise=float(noise), gamma=float(gamma))


def _picture(
    view: KnownView, pattern: Pattern, exposure: Exposure, seed: int, glints: int = 0
) -> NamedPicture:
    return NamedPicture("render", rendered(view, pattern, exposure, seed, glints))


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else float("nan")


def _covered(errors: Floats, stated: Floats) -> float:
    return float(np.mean(np.abs(errors) <= 2 * stated)) if len(errors) else float("nan")


def main(words: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="coverage of the stated uncertainty on synthetic renders")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--way", choices=list(WAYS), nargs="*", default=list(WAYS))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(words)
    for way in arguments.way:
        table = measured_row(way, arguments.draws, arguments.seed).table()
        if arguments.json:
            print(json.dumps(table), flush=True)
            continue
        print(
            f"{way:28} draws {table['draws']} refused {table['refused']}; centre: rms error"
            f" {table['centre_ppm']:.0f} ppm, stated {table['centre_stated_ppm']:.0f} ppm, covered"
            f" {table['centre_coverage']:.3f}; lengths: {table['length_ppm']:.0f} ppm, stated"
            f" {table['length_stated_ppm']:.0f} ppm, covered {table['length_coverage']:.3f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

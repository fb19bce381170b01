"""Corners of a checkerboard or a ChArUco board in one picture, to a few hundredths of a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ...runtime.errors import ScaleError
from ...runtime.judge.scale import Floats

Grey = npt.NDArray[np.uint8]

LEAST_CORNERS = 12
_LEAST_SHARE = 0.4  # of the board's corners
_WINDOW = (3, 15)  # px half a side of what a corner is refined in
_REFINED = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-4)


@dataclass(frozen=True)
class Board:
    """A flat pattern of known size: `columns_rows` inner corners for a checkerboard, squares for ChArUco.

    marker_mm and dictionary belong to ChArUco; None: a checkerboard.
    """

    columns_rows: tuple[int, int]
    square_mm: float
    marker_mm: float | None = None
    dictionary: str = "DICT_4X4_50"

    @property
    def corners(self) -> int:
        """How many corners a whole view has."""
        columns, rows = self.columns_rows
        return columns * rows if self.marker_mm is None else (columns - 1) * (rows - 1)


@dataclass(frozen=True)
class Corners:
    """Corners seen in one picture: plane_mm [n, 2] and picture_xy [n, 2] (pixel centres at integer + 0.5)."""

    plane_mm: Floats
    picture_xy: Floats


def board_corners(grey: Grey, board: Board, what: str) -> Corners:
    """The board's corners; ScaleError names `what`, how many were found and what to do."""
    if board.marker_mm is None:
        numbers, seen = _checkerboard_corners(grey, board, what)
        columns = board.columns_rows[0]
    else:
        numbers, seen = _charuco_corners(grey, board, what)
        columns = board.columns_rows[0] - 1
    least = max(LEAST_CORNERS, round(_LEAST_SHARE * board.corners))
    if len(numbers) < least:
        raise ScaleError(
            f"{what}: {len(numbers)} of the board's {board.corners} corners were found (at least {least});"
            " show the whole board, sharp and evenly lit"
        )
    plane = np.stack([numbers % columns, numbers // columns], axis=1).astype(np.float64) * board.square_mm
    return Corners(plane, _refined(grey, seen, plane) + 0.5)


def _checkerboard_corners(grey: Grey, board: Board, what: str) -> tuple[npt.NDArray[np.int64], Floats]:
    flags = cv2.CALIB_CB_ADAPTIVE_THRESH + cv2.CALIB_CB_NORMALIZE_IMAGE
    found, seen = cv2.findChessboardCorners(grey, board.columns_rows, flags=flags)
    if not found:  # the other detector takes 1 s where the first takes 0.1 s, and sees more
        flags = cv2.CALIB_CB_NORMALIZE_IMAGE
        found, seen = cv2.findChessboardCornersSB(grey, board.columns_rows, flags=flags)
    if not found:
        columns, rows = board.columns_rows
        raise ScaleError(
            f"{what}: no checkerboard of {columns}x{rows} INNER corners was found; count corners where four"
            " squares meet, show the whole board with a white rim, sharp and evenly lit"
        )
    return np.arange(len(seen)), np.asarray(seen, np.float64).reshape(-1, 2)


def _charuco_corners(grey: Grey, board: Board, what: str) -> tuple[npt.NDArray[np.int64], Floats]:
    """Corner numbers and places; boards drawn before OpenCV 4.6 have another first row and are tried, too."""
    best_numbers, best, markers = np.empty(0, np.int64), np.empty((0, 2)), 0
    for is_legacy in (False, True):
        pattern = _charuco(board)
        if is_legacy:
            pattern.setLegacyPattern(True)
        seen, numbers, _, ids = cv2.aruco.CharucoDetector(pattern).detectBoard(grey)
        markers = max(markers, 0 if ids is None else len(ids))
        if numbers is not None and len(numbers) > len(best_numbers):
            best_numbers = np.asarray(numbers, np.int64).reshape(-1)
            best = np.asarray(seen, np.float64).reshape(-1, 2)
    if not len(best_numbers):
        columns, rows = board.columns_rows
        hint = (
            f"{markers} markers of {board.dictionary} were seen, but no corners: check columns and rows"
            if markers
            else f"no marker of {board.dictionary} was seen: check --dictionary, focus and light"
        )
        raise ScaleError(f"{what}: no ChArUco board of {columns}x{rows} squares was found; {hint}")
    return best_numbers, best


def _charuco(board: Board) -> Any:
    """OpenCV's board; ScaleError for a size or dictionary that cannot be, or an OpenCV that is too old."""
    aruco = getattr(cv2, "aruco", None)
    if aruco is None or not hasattr(aruco, "CharucoDetector"):
        raise ScaleError(
            f"OpenCV {cv2.__version__} has no ChArUco detector; install opencv-python-headless 4.8 or"
            " later, or use --checkerboard"
        )
    number = getattr(aruco, board.dictionary, None)
    if not board.dictionary.startswith("DICT_") or not isinstance(number, int):
        known = ", ".join(sorted(name for name in dir(aruco) if name.startswith("DICT_")))
        raise ScaleError(f"the dictionary {board.dictionary!r} is unknown; OpenCV has {known}")
    try:
        dictionary = aruco.getPredefinedDictionary(number)
        return aruco.CharucoBoard(board.columns_rows, board.square_mm, board.marker_mm, dictionary)
    except cv2.error as error:
        columns, rows = board.columns_rows
        raise ScaleError(
            f"no ChArUco board of {columns}x{rows} squares of {board.square_mm:g} mm with markers of"
            f" {board.marker_mm:g} mm in {board.dictionary}: {error.err}; the marker must be smaller than the"
            " square, and the dictionary has enough markers"
        ) from None


def _refined(grey: Grey, seen: Floats, plane: Floats) -> Floats:
    """The corners where the edges of their four squares cross; the window stays within the squares."""
    neighbour = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    pitch = float(np.min(neighbour[neighbour > 0]))
    pairs = np.argwhere(np.isclose(neighbour, pitch))
    apart = np.linalg.norm(seen[pairs[:, 0]] - seen[pairs[:, 1]], axis=1)
    half = int(np.clip(0.25 * float(apart.min()), *_WINDOW))
    points = seen.reshape(-1, 1, 2).astype(np.float32)
    fine = cv2.cornerSubPix(grey, points, (half, half), (-1, -1), _REFINED)
    return np.asarray(fine, np.float64).reshape(-1, 2)

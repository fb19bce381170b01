"""The warped copy: seeded, the same size, moved by no more than it says."""

import cv2
import numpy as np

from orinspect.evaluation.warp import is_binarised, warp_rng, warp_template


def _board(size: int = 256) -> np.ndarray:
    board = np.zeros((size, size), np.uint8)
    for x in range(20, size, 40):
        cv2.line(board, (x, 10), (x, size - 10), 255, 8)
    cv2.circle(board, (size // 2, size // 2), 22, 255, -1)
    return board


def test_a_warp_is_repeated_by_its_seed_and_name() -> None:
    board = _board()
    once = warp_template(board, warp_rng(5, "a"))
    again = warp_template(board, warp_rng(5, "a"))
    other = warp_template(board, warp_rng(5, "b"))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_a_warped_scan_stays_a_binary_picture_of_the_same_size() -> None:
    board = _board()
    warped = warp_template(board, np.random.default_rng(0))
    assert warped.shape == board.shape and warped.dtype == np.uint8
    assert set(np.unique(warped)) <= {0, 255}
    assert not np.array_equal(warped, board)


def test_a_warp_moves_no_edge_further_than_shift_and_bend_allow() -> None:
    board = _board()
    for seed in range(10):
        warped = warp_template(board, np.random.default_rng(seed), max_shift_px=4.0, max_bend_px=1.5)
        # 4 + 1.5 px of movement and at most 1.5 px of edge from blur and threshold: 7 px, a 15 px square.
        grown = cv2.dilate(board, np.ones((15, 15), np.uint8))
        inner = slice(8, -8)
        assert not np.any((warped > 0)[inner, inner] & (grown == 0)[inner, inner])


def test_a_warp_of_nothing_moves_nothing() -> None:
    board = _board()
    warped = warp_template(board, np.random.default_rng(1), max_shift_px=0.0, max_bend_px=0.0)
    changed = (warped != board).mean()
    assert changed < 0.05  # lines may get a pixel wider or thinner, nothing else
    assert abs(cv2.moments(warped)["m10"] / cv2.moments(warped)["m00"]
               - cv2.moments(board)["m10"] / cv2.moments(board)["m00"]) < 0.5


def test_grey_and_colour_pictures_are_not_thresholded() -> None:
    ramp = np.tile(np.linspace(40, 220, 128, dtype=np.uint8), (128, 1))
    assert not is_binarised(ramp)
    colour = np.dstack([ramp, ramp, ramp])
    warped = warp_template(colour, np.random.default_rng(3))
    assert warped.shape == colour.shape
    assert len(np.unique(warped)) > 50

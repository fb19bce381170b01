"""Positions, masks and the copy that keeps the past."""

from __future__ import annotations

import numpy as np
import pytest

from orinspect.runtime.infer.sequence import mask_for, positions_for_segments, store_new_kv


def test_text_advances_all_axes_and_an_image_its_longer_side() -> None:
    positions, following = positions_for_segments([2, (2, 3), 1], start=4)
    assert positions.T.tolist() == [
        [4, 4, 4], [5, 5, 5],
        [6, 6, 6], [6, 6, 7], [6, 6, 8], [6, 7, 6], [6, 7, 7], [6, 7, 8],
        [9, 9, 9],
    ]  # fmt: skip
    assert following == 10


def test_no_segments_take_no_place() -> None:
    positions, following = positions_for_segments([], start=3)
    assert (positions.shape, following) == ((3, 0), 3)
    assert positions_for_segments([0, (1, 1)])[0].tolist() == [[0], [0], [0]]


def seen(mask: np.ndarray, row: int) -> list[list[int]]:
    """For every query of a row, the columns that it sees."""
    return [np.flatnonzero(line == 0).tolist() for line in mask[row]]


def test_mask_of_a_ragged_batch() -> None:
    mask = mask_for([2, 0, 3], [3, 1, 0], past_slots=4, columns=3)
    assert mask.dtype == np.float32
    assert mask.shape == (3, 3, 7)
    assert set(np.unique(mask)) == {0.0, np.float32(-1e4)}
    assert seen(mask, 0) == [[0, 1, 4], [0, 1, 4, 5], [0, 1, 4, 5, 6]]
    assert seen(mask, 1) == [[4], [5], [6]], "two padded queries see themselves; the real one has no past"
    assert seen(mask, 2) == [[4], [5], [6]], "an idle row is padding only and its past is not read"


def test_mask_without_a_past_is_causal() -> None:
    assert seen(mask_for([0], [3], past_slots=0, columns=3), 0) == [[0], [0, 1], [0, 1, 2]]


@pytest.mark.parametrize(("past", "real"), [([5], [1]), ([-1], [1]), ([0], [4]), ([0], [-1])])
def test_lengths_outside_the_buffer_are_refused(past: list[int], real: list[int]) -> None:
    with pytest.raises(ValueError, match="must lie within"):
        mask_for(past, real, past_slots=4, columns=3)


def test_lengths_of_different_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="2 past lengths do not match 1"):
        mask_for([0, 0], [1], past_slots=4, columns=3)


def test_new_rows_are_placed_behind_the_past_and_padding_is_left_out() -> None:
    past = np.full((3, 1, 2, 1, 5, 1), -1, np.float32)
    new = np.arange(3 * 2 * 3, dtype=np.float32).reshape(3, 1, 2, 1, 3, 1)
    store_new_kv(past, new, [1, 0, 5], [2, 3, 0])
    assert past[0, 0, :, 0, :, 0].tolist() == [[-1, 1, 2, -1, -1], [-1, 4, 5, -1, -1]]
    assert past[1, 0, :, 0, :, 0].tolist() == [[6, 7, 8, -1, -1], [9, 10, 11, -1, -1]]
    assert (past[2] == -1).all()


def test_a_row_that_does_not_fit_is_refused() -> None:
    past, new = np.zeros((1, 1, 2, 1, 4, 1), np.float32), np.zeros((1, 1, 2, 1, 2, 1), np.float32)
    with pytest.raises(ValueError, match=r"row 0: 3 \+ 2 tokens do not fit 4 slots"):
        store_new_kv(past, new, [3], [2])

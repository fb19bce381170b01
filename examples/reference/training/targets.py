"""What the network should say about a sample: weighted answer tokens, and the dense head's cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orinspect.export.prompt import answer_ids, answer_text, encode

FloatArray = npt.NDArray[np.float32]

CELL_PX = 32  # one merged token
TYPE_WEIGHT, LIST_WEIGHT, TENS_WEIGHT, ONES_WEIGHT = 4.0, 2.0, 1.0, 0.5
MAX_DEFECTS = 8
VOTE_CELLS, NEAR_CELLS = 0.75, 0.9  # of a box's centre from a cell's centre, in cells, the longer axis


@dataclass(frozen=True)
class Answer:
    """`ids` [n]: the answer's tokens; `weights` [n]: loss weight of each, 0 where the guide forces it."""

    ids: list[int]
    weights: list[float]


class AnswerWriter:
    """Canonical answers of one tokenizer, with a loss weight only where the guide leaves a choice."""

    def __init__(self, tokenizer: Any, types: Sequence[str]) -> None:
        """`types`: the labels by type index; a token of a label weighs where labels part from each other."""
        self.tokenizer, self.types = tokenizer, tuple(types)
        self.digits = {encode(tokenizer, str(digit))[0] for digit in range(10)}
        self.zero = encode(tokenizer, "0")[0]
        self.labels = [encode(tokenizer, label) for label in self.types]
        probe = [("open", (1.0, 1.0, 40.0, 40.0))] * 2
        one, two = (encode(tokenizer, answer_text(probe[:n])) for n in (1, 2))
        label = one.index(encode(tokenizer, "open")[0])
        self.list_tokens = {one[0], encode(tokenizer, "[]")[0], one[-1], two[label + 1]}
        self.label_opener = one[label - 1]

    def answer(self, boxes: FloatArray) -> Answer:
        """`boxes` [n, 5] in tile pixels with the type index last."""
        largest = sorted(boxes.tolist(), key=lambda row: (row[0] - row[2]) * (row[3] - row[1]))[:MAX_DEFECTS]
        defects = [(self.types[int(row[4])], (row[0], row[1], row[2], row[3])) for row in largest]
        ids = answer_ids(self.tokenizer, answer_text(defects))[:-1]  # <|im_end|> is forced, never run
        named = self._choices_of_labels(ids)
        weights, run = [], 0
        for index, token in enumerate(ids):
            if token in self.digits and self._in_number(ids, index):
                weights.append(TENS_WEIGHT if run == 0 else ONES_WEIGHT)
                run += 1
                continue
            after_one_digit = run == 1 and ids[index - 1] != self.zero
            run = 0
            if index in named:
                weights.append(TYPE_WEIGHT)
            elif token in self.list_tokens:
                weights.append(LIST_WEIGHT)
            else:
                weights.append(ONES_WEIGHT if after_one_digit else 0.0)
        return Answer(ids, weights)

    def _choices_of_labels(self, ids: list[int]) -> set[int]:
        """Where in an answer a label's token is a choice between labels."""
        places: set[int] = set()
        for start in (index + 1 for index, token in enumerate(ids) if token == self.label_opener):
            label = max((each for each in self.labels if ids[start : start + len(each)] == each), key=len)
            for length in range(len(label)):
                rivals = [each for each in self.labels if each[:length] == label[:length]]
                if len({tuple(each[length : length + 1]) for each in rivals}) > 1:
                    places.add(start + length)
        return places

    def _in_number(self, ids: list[int], index: int) -> bool:
        """A digit of a coordinate, not the 2 of bbox_2d, which follows an underscore."""
        return not (index and ids[index - 1] == self._underscore)

    @property
    def _underscore(self) -> int:
        return encode(self.tokenizer, "_")[0]


@dataclass(frozen=True)
class Cells:
    """Dense targets of a 4x4 grid.

    `presence` [16] 0/1; `known` [16] 0 where undecided; `type` [16]; `box` [16, 4] l, t, r, b in token units.
    """

    presence: FloatArray
    known: FloatArray
    type: npt.NDArray[np.int64]
    box: FloatArray


def cells_from_boxes(boxes: FloatArray, left_out: FloatArray | None = None, side: int = 4) -> Cells:
    """A cell whose centre lies within three quarters of a cell of a box's centre answers for the nearest box.

    A tile is centred on its defect, where four cells meet: all four vote. Between VOTE_CELLS and NEAR_CELLS
    nothing is asked, nor near the boxes `left_out`. Both [n, 5] in tile pixels with the type index last.
    """
    presence, known = np.zeros(side * side, np.float32), np.ones(side * side, np.float32)
    types, ltrb = np.zeros(side * side, np.int64), np.zeros((side * side, 4), np.float32)
    for index in range(side * side):
        y, x = index // side + 0.5, index % side + 0.5
        nearest = NEAR_CELLS
        for x1, y1, x2, y2, kind in boxes / np.array([CELL_PX] * 4 + [1], np.float32):
            away = max(abs((x1 + x2) / 2 - x), abs((y1 + y2) / 2 - y))
            if away < nearest:
                nearest = away
                types[index], ltrb[index] = int(kind), (x - x1, y - y1, x2 - x, y2 - y)
        presence[index] = float(nearest < VOTE_CELLS)
        known[index] = float(nearest < VOTE_CELLS or nearest >= NEAR_CELLS)
        for x1, y1, x2, y2, _ in () if left_out is None or presence[index] else left_out / CELL_PX:
            if max(abs((x1 + x2) / 2 - x), abs((y1 + y2) / 2 - y)) < 2 * NEAR_CELLS:
                known[index] = 0.0
    return Cells(presence, known, types, ltrb)

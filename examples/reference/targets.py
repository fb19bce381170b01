"""What the network should say about a sample: weighted answer tokens, and the dense head's cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orinspect.export.prompt import answer_ids, answer_text, encode
from orinspect.runtime.capture.scenes import DEFECT_TYPES

FloatArray = npt.NDArray[np.float32]

CELL_PX = 32  # one merged token
TYPE_WEIGHT, LIST_WEIGHT, TENS_WEIGHT, ONES_WEIGHT = 4.0, 2.0, 1.0, 0.5
MAX_DEFECTS = 8


@dataclass(frozen=True)
class Answer:
    """`ids` [n]: the answer's tokens; `weights` [n]: loss weight of each, 0 where the guide forces it."""

    ids: list[int]
    weights: list[float]


class AnswerWriter:
    """Canonical answers of one tokenizer, with a loss weight only where the guide leaves a choice."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.digits = {encode(tokenizer, str(digit))[0] for digit in range(10)}
        self.zero = encode(tokenizer, "0")[0]
        self.labels = {encode(tokenizer, label)[0] for label in DEFECT_TYPES}
        probe = [("open", (1.0, 1.0, 40.0, 40.0))] * 2
        one, two = (encode(tokenizer, answer_text(probe[:n])) for n in (1, 2))
        label = encode(tokenizer, "open")
        self.list_tokens = {one[0], encode(tokenizer, "[]")[0], one[-1], two[two.index(label[0]) + 1]}

    def answer(self, boxes: FloatArray) -> Answer:
        """`boxes` [n, 5] in tile pixels with the type index last."""
        largest = sorted(boxes.tolist(), key=lambda row: (row[0] - row[2]) * (row[3] - row[1]))[:MAX_DEFECTS]
        defects = [(DEFECT_TYPES[int(row[4])], (row[0], row[1], row[2], row[3])) for row in largest]
        ids = answer_ids(self.tokenizer, answer_text(defects))[:-1]  # <|im_end|> is forced, never run
        weights, run = [], 0
        for index, token in enumerate(ids):
            if token in self.digits and self._in_number(ids, index):
                weights.append(TENS_WEIGHT if run == 0 else ONES_WEIGHT)
                run += 1
                continue
            after_one_digit = run == 1 and ids[index - 1] != self.zero
            run = 0
            if token in self.labels:
                weights.append(TYPE_WEIGHT)
            elif token in self.list_tokens:
                weights.append(LIST_WEIGHT)
            else:
                weights.append(ONES_WEIGHT if after_one_digit else 0.0)
        return Answer(ids, weights)

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


def cells_from_boxes(boxes: FloatArray, side: int = 4) -> Cells:
    """The cell with a box's centre answers for it; a neighbour within a fifth of a cell is left undecided.

    `boxes` [n, 5] in tile pixels with the type index last; of two in one cell the larger is kept.
    """
    presence, known = np.zeros(side * side, np.float32), np.ones(side * side, np.float32)
    types, ltrb = np.zeros(side * side, np.int64), np.zeros((side * side, 4), np.float32)
    smallest_first = np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[::-1]
    for x1, y1, x2, y2, kind in boxes[smallest_first] / np.array([CELL_PX] * 4 + [1], np.float32):
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        column, row = min(int(x), side - 1), min(int(y), side - 1)
        for other_row in range(side):
            for other_column in range(side):
                away = max(abs(x - other_column - 0.5), abs(y - other_row - 0.5))
                if away < 0.7:
                    known[other_row * side + other_column] = 0
        index = row * side + column
        presence[index], types[index] = 1, int(kind)
        ltrb[index] = (column + 0.5 - x1, row + 0.5 - y1, x2 - column - 0.5, y2 - row - 0.5)
    known[presence > 0] = 1
    return Cells(presence, known, types, ltrb)

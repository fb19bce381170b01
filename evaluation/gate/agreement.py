"""Token agreement under the guide: does INT8 take the token that float took, at every choice on float's path?

Teacher forcing: the INT8 pipeline (its own vision, its own keys and values) is led along float's answers. An
answer whose every choice agrees is the answer that INT8 gives when it runs free, so whole answers need no run
of their own. Choices that float itself takes by a hair say little: those with a margin are counted beside.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from ...runtime.errors import EngineError

Logits = npt.NDArray[np.float64]

CLEAR_MARGIN = 1.0
"""A choice is clear when float's logit leads the runner-up by this much: e times as likely."""


@dataclass(frozen=True)
class Agreement:
    """`decisions` choices of float and how many of them INT8 takes too; `clear*` those with a margin.

    `answers_equal` of `answers` are equal token for token. `largest_margin_lost` is the largest lead of a
    choice that INT8 takes otherwise, `logit_error` the root mean square of the change of the lead.
    """

    decisions: int
    agreed: int
    clear: int
    clear_agreed: int
    answers: int
    answers_equal: int
    largest_margin_lost: float
    logit_error: float

    @property
    def share(self) -> float:
        """agreed / decisions; 1 where nothing was decided."""
        return self.agreed / self.decisions if self.decisions else 1.0

    def to_json(self) -> dict[str, float | int]:
        """Plain values for the manifest."""
        return asdict(self) | {"share": self.share}


@dataclass(frozen=True)
class _Taken:
    """One choice of the float decoder: in which answer, what it saw, what it took."""

    answer: tuple[int, int]
    logits: Logits
    edge: int


class FloatPath:
    """What float took, choice by choice; `taking` and `leading` are `select` arguments of an Inspector.

    `begin` is called before each part, in both runs.
    """

    def __init__(self) -> None:
        self._part = 0
        self._taken: list[_Taken] = []
        self._seen: list[Logits] = []

    @property
    def is_empty(self) -> bool:
        """Whether float had nothing to decide."""
        return not self._taken

    def begin(self, part: int) -> None:
        """The next choices are those of this part."""
        self._part = part

    def taking(self, tile: int, logits: Logits) -> int:
        """Take the likeliest token and remember it."""
        edge = int(np.argmax(logits))
        self._taken.append(_Taken((self._part, tile), logits.copy(), edge))
        return edge

    def leading(self, tile: int, logits: Logits) -> int:
        """Take what float took at this choice; remember what INT8 thinks of it."""
        index = len(self._seen)
        due = self._taken[index] if index < len(self._taken) else None
        if due is None or due.answer != (self._part, tile) or due.logits.shape != logits.shape:
            raise EngineError(
                f"part {self._part}, tile {tile}: the INT8 run left the path of the float run;"
                " give two bundles of one checkpoint and recipe"
            )
        self._seen.append(logits.copy())
        return due.edge

    def agreement(self) -> Agreement:
        """Both runs against each other, after `leading` has seen every choice."""
        equal: dict[tuple[int, int], bool] = {}
        agreed = clear = clear_agreed = 0
        lost, squares = 0.0, 0.0
        for due, seen in zip(self._taken, self._seen, strict=True):
            others = np.delete(np.arange(len(seen)), due.edge)
            lead = float(due.logits[due.edge] - due.logits[others].max())
            lead_int8 = float(seen[due.edge] - seen[others].max())
            same = int(np.argmax(seen)) == due.edge
            equal[due.answer] = equal.get(due.answer, True) and same
            agreed += same
            clear += lead >= CLEAR_MARGIN
            clear_agreed += same and lead >= CLEAR_MARGIN
            lost = max(lost, 0.0 if same else lead)
            squares += (lead - lead_int8) ** 2
        count = len(self._taken)
        error = float(np.sqrt(squares / count)) if count else 0.0
        return Agreement(count, agreed, clear, clear_agreed, len(equal), sum(equal.values()), lost, error)

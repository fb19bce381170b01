"""The guide: a token automaton that lets the decoder write nothing but answers of the recipe's schema.

A state with one edge is forced: its token is known without the model and joins the next decoder pass. Only at
states with several edges are logits read, and only those of the edges. The automaton is compiled, and proven
against the tokenizer, by `export/recipe_compile.py`; this half needs neither tokenizer nor TOML.

Answers are `[{"bbox_2d":[x1,y1,x2,y2],"label":"open"},...]`; numbers are bins of a tile, see `bin_from_px`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BundleError
from ..tables import json_value

BINS = {"0-99": 100, "0-1000": 1001}
"""Numbers that each coordinate form can write: 0..99 and 0..1000."""


def bin_from_px(value_px: float, coordinates: str, tile_px: int) -> int:
    """The number written for a tile coordinate: floor of hundredths, or rounded thousandths, clipped."""
    if coordinates == "0-99":
        return min(max(int(value_px * 100 // tile_px), 0), 99)
    return min(max(int(np.floor(value_px * 1000 / tile_px + 0.5)), 0), 1000)


def px_from_bin(number: int, coordinates: str, tile_px: int) -> float:
    """The tile coordinate in pixels that a written number means: the bin's centre for 0-99."""
    if coordinates == "0-99":
        return (number + 0.5) * tile_px / 100
    return number * tile_px / 1000


@dataclass(frozen=True)
class Choice:
    """The edges of one choice state: token ids, their rows in the schema head, the states they lead to."""

    token_ids: npt.NDArray[np.int64]  # [edges]
    rows: npt.NDArray[np.int64]  # [edges], indices into kept_ids = rows of head_schema
    next_states: npt.NDArray[np.int64]  # [edges]


class Guide:
    """A compiled automaton; immutable. States are 0..len-1, `start` is 0, `terminal` has no edges.

    `kept_ids` are the sorted ids of all edges; `head_schema` has one row for each, in this order.
    """

    start = 0

    def __init__(self, states: Sequence[Mapping[int, int]], terminal: int) -> None:
        self.states: tuple[dict[int, int], ...] = tuple(dict(edges) for edges in states)
        self.terminal = terminal
        kept = sorted({token for edges in self.states for token in edges})
        self.kept_ids: npt.NDArray[np.int64] = np.array(kept, dtype=np.int64)
        row_of = {token: row for row, token in enumerate(kept)}
        self._choices = {
            state: Choice(
                np.array(list(edges), dtype=np.int64),
                np.array([row_of[token] for token in edges], dtype=np.int64),
                np.array(list(edges.values()), dtype=np.int64),
            )
            for state, edges in enumerate(self.states)
            if len(edges) > 1
        }
        self._forced = {state: self._run_from(state) for state in range(len(self.states))}

    def forced_run(self, state: int) -> tuple[tuple[int, ...], int]:
        """(ids, next): the tokens that must follow `state`, maybe none, and the state after them."""
        return self._forced[state]

    def choices(self, state: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(rows, next_states) of a choice state: rows of head_schema's logits and where each edge leads."""
        choice = self._choices[state]
        return choice.rows, choice.next_states

    def choice(self, state: int) -> Choice:
        """The edges of a choice state, with their token ids; KeyError for a forced or the terminal state."""
        return self._choices[state]

    def is_choice(self, state: int) -> bool:
        """Whether the model decides at this state."""
        return state in self._choices

    def walk(self, ids: Sequence[int], state: int = 0) -> int | None:
        """The state after `ids`, or None where the automaton does not allow one of them."""
        for token in ids:
            following = self.states[state].get(int(token))
            if following is None:
                return None
            state = following
        return state

    def to_json(self) -> str:
        """JSON: `terminal` and a list of states, each a list of [token id, next state]."""
        states = [[[token, following] for token, following in edges.items()] for edges in self.states]
        return json.dumps({"terminal": self.terminal, "states": states}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Guide:
        """The guide that `to_json` wrote; BundleError when the automaton is broken."""
        try:
            table = json_value(text)
            states = [{int(token): int(following) for token, following in edges} for edges in table["states"]]
            terminal = int(table["terminal"])
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"guide.json: not a compiled guide ({error}); export the bundle again"
            ) from error
        targets = {following for edges in states for following in edges.values()}
        dead = [state for state, edges in enumerate(states) if not edges and state != terminal]
        if (
            not 0 <= terminal < len(states)
            or states[terminal]
            or dead
            or not targets <= set(range(len(states)))
        ):
            raise BundleError("guide.json: an edge leads nowhere; export the bundle again")
        try:
            return cls(states, terminal)
        except OverflowError as error:  # a token beyond 64 bits
            raise BundleError(f"guide.json: {error}; export the bundle again") from error

    def _run_from(self, state: int) -> tuple[tuple[int, ...], int]:
        ids: list[int] = []
        while len(self.states[state]) == 1:
            ((token, state),) = self.states[state].items()
            ids.append(token)
            if len(ids) > len(self.states):
                raise BundleError("guide.json: forced tokens run in a circle; export the bundle again")
        return tuple(ids), state


def text_from_ids(ids: Sequence[int], vocabulary: Mapping[int, bytes]) -> str:
    """The text of answer tokens; ids without text (the end token) are skipped, broken UTF-8 is replaced."""
    return b"".join(vocabulary.get(int(token), b"") for token in ids).decode("utf-8", errors="replace")


def answer_from_text(text: str) -> list[dict[str, Any]] | None:
    """The answer as a list of {"bbox_2d": [x1, y1, x2, y2], "label": text}, or None when it is no answer.

    A cut answer is None, never a shorter list: what was lost could have been a defect.
    """
    try:
        answer = json_value(text)
    except ValueError:
        return None
    if not isinstance(answer, list):
        return None
    for item in answer:
        if (
            not isinstance(item, dict)
            or set(item) != {"bbox_2d", "label"}
            or not isinstance(item["label"], str)
        ):
            return None
        box = item["bbox_2d"]
        if not isinstance(box, list) or len(box) != 4 or any(type(value) is not int for value in box):
            return None
    return answer

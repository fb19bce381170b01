"""The decoder's answers to candidate boxes: bins to picture pixels, token probabilities to confidences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .decode import Answer
from .dense import Candidate, clipped, is_cut
from .guide import answer_from_text, px_from_bin, text_from_ids
from .tiles import Box, Tile


@dataclass(frozen=True)
class Dropped:
    """A box that an answer named and that cannot be a defect: where it stood, its type, and why it was
    dropped.
    """

    box_xyxy: Box
    tile: int
    type: str
    confidence: float
    reason: str


@dataclass(frozen=True)
class Words:
    """All answers read: the candidates in tile order, the boxes that make no sense, and why an answer
    failed.
    """

    candidates: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...]
    failures: tuple[str, ...]


def words_from_answers(
    answers: Sequence[tuple[int, Answer]],
    tiles: Sequence[Tile],
    vocabulary: Mapping[int, bytes],
    types: Sequence[str],
    *,
    coordinates: str,
    tile_px: int,
    picture_wh: tuple[int, int],
    token_budget: int,
) -> Words:
    """Read (tile index, answer) pairs. An answer that was cut or does not parse is a failure, never an
    empty list.
    """
    candidates: list[Candidate] = []
    dropped: list[Dropped] = []
    failures: list[str] = []
    for index, answer in answers:
        tile = tiles[index]
        text = text_from_ids(answer.ids, vocabulary)
        items = None if answer.is_cut else answer_from_text(text)
        if items is None or any(item["label"] not in types for item in items):
            failures.append(f"{_place(tile)}: {_failure(answer, text, token_budget)}")
            continue
        sure = item_probabilities(answer, text, vocabulary)
        for item, (presence, label) in zip(items, sure, strict=True):
            x1, y1, x2, y2 = (px_from_bin(number, coordinates, tile_px) for number in item["bbox_2d"])
            in_tile = (x1, y1, x2, y2)
            box = clipped(tile.to_picture(in_tile), picture_wh)
            name, confidence = str(item["label"]), presence * label
            reason = _no_box(in_tile, box)
            if reason is not None:
                dropped.append(Dropped(tile.to_picture(in_tile), index, name, confidence, reason))
                continue
            probabilities = tuple(confidence if name == known else 0.0 for known in types)
            cut = is_cut(in_tile, tile, tile_px, picture_wh)
            candidates.append(Candidate(box, index, presence, probabilities, cut, tile.level))
    return Words(tuple(candidates), tuple(dropped), tuple(failures))


def item_probabilities(
    answer: Answer, text: str, vocabulary: Mapping[int, bytes]
) -> list[tuple[float, float]]:
    """(presence, label) for every item of an answer that parses.

    presence: of the choices between the previous item's label and this item's brace, that is of starting
    the item rather than ending the list. label: of the choices that spell the label. Numbers do not count:
    a defect that is a pixel to the left is as present.
    """
    starts = _token_starts(answer.ids, vocabulary)
    decisions = [
        (starts[decision.index], starts[decision.index + 1], decision.probability)
        for decision in answer.decisions
    ]
    probabilities = []
    previous_label_end = 0
    for brace, label_start, label_end in _item_spans(text):
        presence = label = 1.0
        for start, end, probability in decisions:
            if previous_label_end <= start <= brace:
                presence *= probability
            elif start < label_end and end > label_start:
                label *= probability
        probabilities.append((presence, label))
        previous_label_end = label_end
    return probabilities


def _item_spans(text: str) -> list[tuple[int, int, int]]:
    """(brace, label start, label end) of every item, in bytes of the UTF-8 text; the label without its
    quotes.
    """
    reader = json.JSONDecoder()
    spans, place = [], 1
    while text[place] == "{":
        item, end = reader.raw_decode(text, place)
        label_end = end - len('"}')
        edges = (place, label_end - len(item["label"]), label_end)
        brace, label_start, label_stop = (len(text[:edge].encode()) for edge in edges)
        spans.append((brace, label_start, label_stop))
        place = end + 1 if text[end] == "," else end
    return spans


def _token_starts(ids: Sequence[int], vocabulary: Mapping[int, bytes]) -> list[int]:
    """Byte offset of every token and of the end."""
    starts = [0]
    for token in ids:
        starts.append(starts[-1] + len(vocabulary.get(token, b"")))
    return starts


def _failure(answer: Answer, text: str, token_budget: int) -> str:
    if answer.is_cut:
        return (
            f"the answer was cut after {len(answer.ids)} tokens, the recipe's token_budget is {token_budget}"
        )
    shown = text if len(text) <= 60 else text[:57] + "..."
    return f"the answer is not in the recipe's schema: {shown!r}"


def _no_box(in_tile: Box, in_picture: Box) -> str | None:
    """Why a box cannot be a defect, or None."""
    x1, y1, x2, y2 = in_tile
    if x2 < x1 or y2 < y1:
        return f"inverted box ({x1:.1f}, {y1:.1f}, {x2:.1f}, {y2:.1f}) in its tile"
    if x2 == x1 or y2 == y1:
        return f"empty box ({x1:.1f}, {y1:.1f}, {x2:.1f}, {y2:.1f}) in its tile"
    if in_picture[2] <= in_picture[0] or in_picture[3] <= in_picture[1]:
        return "box outside the picture"
    return None


def _place(tile: Tile) -> str:
    x, y = tile.left * tile.scale, tile.top * tile.scale
    return f"tile at ({x:.0f}, {y:.0f}) of level {tile.level}"

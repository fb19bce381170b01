"""What the two detectors say, as candidate boxes: the dense head's votes and the decoder's words.

A token of the dense head votes with its presence logit, its type logits and the four distances from its
cell's centre to the sides of the box, in token units (one unit = one cell = patch_px * merge pixels of the
tile); votes are thinned by non-maximum suppression. An answer's numbers are bins of its tile, and the
probabilities of its tokens are its confidences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .decode import Answer
from .engines.engine import FloatArray, check_finite
from .guide import answer_from_text, px_from_bin, text_from_ids
from .pictures.tiles import Box, Tile

CUT_PX = 4.0
"""A side within this many tile pixels of a tile edge counts as cut there: neither head draws to the pixel."""

HELD_SHARE = 0.6
"""A cut box, or one of another level, that another box holds to this share is the same defect, seen worse."""


@dataclass(frozen=True)
class Candidate:
    """A box that one detector proposes.

    `box_xyxy`: pixels of the part picture; `tile`: index into the tiles that survived the gate; `presence`:
    that there is a defect at all; `probabilities`: presence x type for every type of the recipe, the
    detector's confidence is the largest; `is_cut`: the box ends at an edge of its tile that is not an edge
    of the picture.
    """

    box_xyxy: Box
    tile: int
    presence: float
    probabilities: tuple[float, ...]
    is_cut: bool = False
    level: float = 1.0

    @property
    def type_index(self) -> int:
        """The most probable type; the first of equals."""
        return int(np.argmax(self.probabilities))

    @property
    def confidence(self) -> float:
        """Probability of a defect of the most probable type."""
        return max(self.probabilities)


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


def dense_candidates(
    tiles: Sequence[Tile],
    outputs: dict[str, FloatArray],
    *,
    columns: Sequence[int],
    tile_px: int,
    cell_px: int,
    limit: float,
    picture_wh: tuple[int, int],
    nms_iou: float,
) -> list[Candidate]:
    """Every vote with presence >= `limit`, thinned inside each tile, in tile order, best first.

    outputs: presence [tiles, tokens], type [tiles, tokens, types] (logits both), box [tiles, tokens, 4]
    (left, top, right, bottom in token units); columns: the output column of each of the recipe's types.
    Boxes are clipped to the picture; a box without area is no candidate: the dense head votes with several
    tokens and says nothing by an empty box.
    """
    for name in ("presence", "type", "box"):
        check_finite(outputs[name], f"the dense head's {name}")
    presence = _sigmoid(outputs["presence"])  # [tiles, tokens]
    types = _softmax(outputs["type"])[:, :, list(columns)]  # [tiles, tokens, types of the recipe]
    boxes = boxes_in_tile(outputs["box"], tile_px // cell_px, cell_px)  # [tiles, tokens, 4] tile pixels
    candidates: list[Candidate] = []
    for index, tile in enumerate(tiles):
        votes = []
        for token in np.flatnonzero(presence[index] >= limit):
            box_in_tile = _box(boxes[index, token])
            box = clipped(tile.to_picture(box_in_tile), picture_wh)
            if box[2] <= box[0] or box[3] <= box[1]:
                continue
            sure = float(presence[index, token])
            probabilities = tuple(sure * float(p) for p in types[index, token])
            cut = is_cut(box_in_tile, tile, tile_px, picture_wh)
            votes.append(Candidate(box, index, sure, probabilities, cut, tile.level))
        candidates += thinned(votes, nms_iou)
    return candidates


def boxes_in_tile(distances: FloatArray, grid: int, cell_px: int) -> npt.NDArray[np.float64]:
    """[tiles, grid*grid, 4] distances in token units to [tiles, grid*grid, 4] x1, y1, x2, y2 in tile
    pixels.
    """
    centres = (np.arange(grid) + 0.5) * cell_px
    y, x = (axis.reshape(-1) for axis in np.meshgrid(centres, centres, indexing="ij"))
    anchors = np.stack([x, y, x, y], axis=-1)  # [tokens, 4]
    signs = np.array([-1.0, -1.0, 1.0, 1.0])
    return np.asarray(anchors + signs * distances.astype(np.float64) * cell_px)


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


def thinned(candidates: Sequence[Candidate], nms_iou: float) -> list[Candidate]:
    """Greedy non-maximum suppression across all types, best first.

    Whole boxes come before cut ones and fine levels before coarse ones: of two views of one defect they have
    the better box. The surer view lends them its probabilities, so that no certain one is lost to a weak one.
    """
    ordered = sorted(candidates, key=lambda c: (c.is_cut, c.level, -c.confidence, c.box_xyxy))
    kept: list[Candidate] = []
    for candidate in ordered:
        same = next((i for i, other in enumerate(kept) if _same_defect(candidate, other, nms_iou)), None)
        if same is None:
            kept.append(candidate)
        elif candidate.confidence > kept[same].confidence:
            kept[same] = replace(
                kept[same], presence=candidate.presence, probabilities=candidate.probabilities
            )
    return sorted(kept, key=lambda c: (-c.confidence, c.box_xyxy))


def overlap(a: Box, b: Box) -> tuple[float, float]:
    """(intersection over union, intersection over the area of `a`) of two boxes with area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0, 0.0
    inter = width * height
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return inter / (area_a + area_b - inter), inter / area_a


def clipped(box: Box, picture_wh: tuple[int, int]) -> Box:
    """The part of a box that lies inside the picture; without area when nothing does."""
    width, height = picture_wh
    x1, y1, x2, y2 = box
    return (
        min(max(x1, 0.0), float(width)),
        min(max(y1, 0.0), float(height)),
        min(max(x2, 0.0), float(width)),
        min(max(y2, 0.0), float(height)),
    )


def is_cut(box_in_tile: Box, tile: Tile, tile_px: int, picture_wh: tuple[int, int]) -> bool:
    """Whether a box in tile pixels ends at a tile edge beyond which the picture goes on."""
    width, height = (side / tile.scale for side in picture_wh)
    x1, y1, x2, y2 = box_in_tile
    near = CUT_PX
    return (
        (x1 <= near and tile.left > 0)
        or (y1 <= near and tile.top > 0)
        or (x2 >= tile_px - near and tile.left + tile_px < width)
        or (y2 >= tile_px - near and tile.top + tile_px < height)
    )


def _same_defect(worse: Candidate, better: Candidate, nms_iou: float) -> bool:
    iou, share = overlap(worse.box_xyxy, better.box_xyxy)
    return iou > nms_iou or (share > HELD_SHARE and (worse.is_cut or worse.level != better.level))


def _box(row: npt.NDArray[np.float64]) -> Box:
    return float(row[0]), float(row[1]), float(row[2]), float(row[3])


def _sigmoid(logits: FloatArray) -> npt.NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -60.0, 60.0))))


def _softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


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

"""Two detectors' candidates to one list of defects: ownership of tiles, levels, duplicates, and the two
views joined.

The dense head and the words look at the same tiles. Where both see a defect its probabilities are their
mean, weighted by WORDS_SHARE, its type the most probable one and its box the mean of the two boxes. What only
one of them sees must pass that detector's own threshold, and says so in its `reason`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..recipe import Thresholds
from .candidates import HELD_SHARE, Candidate, overlap, thinned
from .pictures.tiles import Box, Tile

DENSE_SLACK_PX = 4.0
"""Two tiles that share an edge of their owned regions may each see a box's centre just on the other side."""

WORDS_SLACK_PX = 8.0
"""Wider than for the dense head, whose centre chose the tile: the words put theirs a bin or two away."""

COARSE_SHARE = 0.75
"""A coarse tile leaves shorter boxes than this share of what it surely holds whole to a finer tile there."""

WORDS_SHARE = 0.65
"""Weight of the words against the dense head: they name the type after they have written the box."""

SAME_IOU = 0.5
SAME_CENTRE = 0.25
"""Dense and words mean the same defect: IoU above the one, or centres closer than the other times the mean
side.
"""


@dataclass(frozen=True)
class CandidateDefect:
    """A defect as the judge gets it.

    `bbox_xyxy`: pixels of the part picture with the recipe's margin, x2 and y2 exclusive; `confidence`: raw,
    as the detectors say it; `detector`: dense, words or both; `reason`: what speaks against it, None when
    nothing does.

    The signals, from which `judge/confidence.py` tells how sure this is; None where nobody looked:
    `dense_confidence`, `words_confidence`: probability of this type by each detector that sees the defect;
    `agreement_iou`: of their two boxes; `type_margin`: how far the type leads the next one, -1..1 of the
    certainty that there is a defect; `at_tile_edge`: the box ends where its tile ends; `shift_iou`: of this
    box and the one found when the tile was looked at again, moved by a few pixels, 0 for none found.
    `tile`: index of the tile that reported it; `presence`: probability of a defect of whatever type.
    """

    type: str
    bbox_xyxy: Box
    confidence: float
    detector: str
    reason: str | None = None
    dense_confidence: float | None = None
    words_confidence: float | None = None
    agreement_iou: float | None = None
    type_margin: float | None = None
    at_tile_edge: bool = False
    shift_iou: float | None = None
    tile: int | None = None
    presence: float | None = None


def owned(
    candidates: Sequence[Candidate],
    tiles: Sequence[Tile],
    *,
    tile_px: int,
    stride_px: int,
    slack_px: float,
    nms_iou: float,
) -> list[Candidate]:
    """The candidates that their tiles answer for, each defect once, best first.

    A centre may lie `slack_px` of the tile's level outside its region. A small box is none of a coarse tile's
    business where a tile of a finer level answers for its centre.
    """
    kept = []
    finer: dict[float, OwnedPlaces] = {}  # of a tile's level: the tiles of finer ones
    for candidate in candidates:
        tile = tiles[candidate.tile]
        if not is_near_owned(candidate, tile, slack_px):
            continue
        if _longest(candidate.box_xyxy) < COARSE_SHARE * ((tile_px - stride_px) * tile.scale / 2):
            if tile.level not in finer:
                finer[tile.level] = OwnedPlaces([one for one in tiles if one.level < tile.level])
            if finer[tile.level].hold(_centre(candidate.box_xyxy)):
                continue
        kept.append(candidate)
    return thinned(kept, nms_iou)


def tiles_to_decode(candidates: Sequence[Candidate]) -> list[int]:
    """Indices of the tiles that hold a surviving dense candidate, in tile order: only these reach the
    decoder.
    """
    return sorted({candidate.tile for candidate in candidates})


def fused(
    dense: Sequence[Candidate],
    words: Sequence[Candidate],
    types: Sequence[str],
    thresholds: Thresholds,
    *,
    detectors: Collection[str] = ("dense", "words"),
) -> tuple[CandidateDefect, ...]:
    """The defects of a part in reading order (top, then left)."""
    defects = []
    seen_dense: set[int] = set()
    seen_words: set[int] = set()
    for i, j in _matches(dense, words):
        defect = _joined(dense[i], words[j], types)
        if defect.confidence >= thresholds.both:  # below it each detector may still report what it sees alone
            defects.append(defect)
            seen_dense.add(i)
            seen_words.add(j)
    single = len(detectors) == 1
    dense_limit = thresholds.presence if single else thresholds.dense_alone
    for i, candidate in enumerate(dense):
        if i not in seen_dense and candidate.presence >= dense_limit:
            reason = None if single else "the words do not name it"
            defects.append(defect_from_candidate(candidate, types, "dense", reason))
    for j, candidate in enumerate(words):
        if j not in seen_words and candidate.confidence >= thresholds.words:
            reason = None if single else "the dense head does not see it"
            defects.append(defect_from_candidate(candidate, types, "words", reason))
    return tuple(
        sorted(defects, key=lambda defect: (defect.bbox_xyxy[1], defect.bbox_xyxy[0], defect.bbox_xyxy))
    )


def strongest_unreported(
    candidates: Sequence[Candidate], defects: Sequence[CandidateDefect], nms_iou: float
) -> float:
    """The largest presence of a candidate that no reported defect stands for; 0 when there is none.

    A defect that the recipe ignores must not hide what was nearly reported beside it. A defect stands for the
    candidates that lie on it: those that overlap it beyond `nms_iou`, lie in it, or share its centre.
    """
    unreported = (
        candidate.presence
        for candidate in candidates
        if not any(_is_at(candidate.box_xyxy, defect.bbox_xyxy, nms_iou) for defect in defects)
    )
    return max(unreported, default=0.0)


def defect_from_candidate(
    candidate: Candidate, types: Sequence[str], detector: str, reason: str | None = None
) -> CandidateDefect:
    """One detector's candidate under the name of its most probable type."""
    return CandidateDefect(
        types[candidate.type_index],
        candidate.box_xyxy,
        candidate.confidence,
        detector,
        reason,
        dense_confidence=candidate.confidence if detector == "dense" else None,
        words_confidence=candidate.confidence if detector == "words" else None,
        type_margin=_type_margin(candidate.probabilities, candidate.presence),
        at_tile_edge=candidate.is_cut,
        tile=candidate.tile,
        presence=candidate.presence,
    )


def _joined(dense: Candidate, words: Candidate, types: Sequence[str]) -> CandidateDefect:
    means = [
        (1.0 - WORDS_SHARE) * a + WORDS_SHARE * b
        for a, b in zip(dense.probabilities, words.probabilities, strict=True)
    ]
    confidence = max(means)
    index = means.index(confidence)
    names = types[dense.type_index], types[words.type_index]
    reason = None if names[0] == names[1] else f"the dense head says {names[0]}, the words say {names[1]}"
    # A cut box shows where the tile ended, not where the defect does.
    if dense.is_cut != words.is_cut:
        box = words.box_xyxy if dense.is_cut else dense.box_xyxy
    else:
        x1, y1, x2, y2 = ((a + b) / 2 for a, b in zip(dense.box_xyxy, words.box_xyxy, strict=True))
        box = (x1, y1, x2, y2)
    presence = (1.0 - WORDS_SHARE) * dense.presence + WORDS_SHARE * words.presence
    return CandidateDefect(
        types[index],
        box,
        confidence,
        "both",
        reason,
        dense_confidence=dense.probabilities[index],
        words_confidence=words.probabilities[index],
        agreement_iou=overlap(dense.box_xyxy, words.box_xyxy)[0],
        type_margin=_type_margin(means, presence),
        at_tile_edge=dense.is_cut and words.is_cut,
        tile=dense.tile,
        presence=presence,
    )


def _type_margin(probabilities: Sequence[float], presence: float) -> float:
    """First type minus all that may belong to the next one, as shares of `presence`: -1..1.

    The words spell one type only; what they leave to others counts for the runner-up.
    """
    if presence <= 0.0:
        return 0.0
    first, *rest = sorted((p / presence for p in probabilities), reverse=True)
    unnamed = max(0.0, 1.0 - first - sum(rest))
    return first - (rest[0] if rest else 0.0) - unnamed


def _matches(dense: Sequence[Candidate], words: Sequence[Candidate]) -> list[tuple[int, int]]:
    """One-to-one pairs (dense, words) that mean the same defect, the closest first."""
    close = []
    for i, one in enumerate(dense):
        for j, other in enumerate(words):
            iou, _ = overlap(one.box_xyxy, other.box_xyxy)
            away = _centre_distance(one.box_xyxy, other.box_xyxy)
            if iou > SAME_IOU or away < SAME_CENTRE * _mean_side(one.box_xyxy, other.box_xyxy):
                close.append((-iou, away, i, j))
    pairs: list[tuple[int, int]] = []
    for _, _, i, j in sorted(close):
        if all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return pairs


def _is_at(box: Box, reported: Box, nms_iou: float) -> bool:
    iou, held = overlap(box, reported)
    is_centred = _centre_distance(box, reported) < SAME_CENTRE * _mean_side(box, reported)
    return iou > nms_iou or held > HELD_SHARE or is_centred


def is_near_owned(candidate: Candidate, tile: Tile, slack_px: float) -> bool:
    """Whether the centre of a candidate's box lies in its tile's region, or at most `slack_px` of the tile's
    level outside.
    """
    x, y = (side / tile.scale for side in _centre(candidate.box_xyxy))
    x1, y1, x2, y2 = tile.owned_xyxy
    return x1 - slack_px <= x < x2 + slack_px and y1 - slack_px <= y < y2 + slack_px


class OwnedPlaces:
    """The regions that some tiles own, found by place: twelve megapixels have thousands of tiles."""

    def __init__(self, tiles: Sequence[Tile]) -> None:
        self._regions: dict[tuple[float, int, int], list[tuple[int, int, int, int]]] = {}
        self._sides: dict[float, int] = {}  # by scale: as large as the largest region
        for tile in tiles:
            x1, y1, x2, y2 = tile.owned_xyxy
            self._sides[tile.scale] = max(self._sides.get(tile.scale, 1), x2 - x1, y2 - y1)
        for tile in tiles:
            side = self._sides[tile.scale]
            place = (tile.scale, tile.owned_xyxy[0] // side, tile.owned_xyxy[1] // side)
            self._regions.setdefault(place, []).append(tile.owned_xyxy)

    def hold(self, point_xy: tuple[float, float]) -> bool:
        """Whether a point of the picture lies in any of the regions."""
        for scale, side in self._sides.items():
            x, y = point_xy[0] / scale, point_xy[1] / scale
            column, row = math.floor(x / side), math.floor(y / side)
            for place in ((scale, column - i, row - j) for i in (0, 1) for j in (0, 1)):
                for x1, y1, x2, y2 in self._regions.get(place, ()):
                    if x1 <= x < x2 and y1 <= y < y2:
                        return True
        return False


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _longest(box: Box) -> float:
    return max(box[2] - box[0], box[3] - box[1])


def _mean_side(a: Box, b: Box) -> float:
    return sum(box[2] - box[0] + box[3] - box[1] for box in (a, b)) / 4


def _centre_distance(a: Box, b: Box) -> float:
    return math.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)

"""What an inspection gives: the defects, each detector's own list, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

from .fuse import CandidateDefect


@dataclass(frozen=True)
class Passes:
    """What one part cost.

    row_passes: sequences x decoder calls, prefill included; row_passes_forced: those spent on forced tokens
    only, always 0; engine_calls: calls of any engine, whatever their batch; tiles: those that a grid over the
    whole part would take; tiles_gated: how many of them the gate spared, because tiles lie on differences
    only; tiles_decoded: those that reached the decoder; canonical_tokens: tokens of the answers in canonical
    minified form, end token included.
    """

    row_passes: int = 0
    row_passes_forced: int = 0
    engine_calls: int = 0
    tiles: int = 0
    tiles_gated: int = 0
    tiles_decoded: int = 0
    canonical_tokens: int = 0


@dataclass(frozen=True)
class Inspection:
    """What was found on one part.

    defects: the joined list above the recipe's thresholds, in reading order. dense, words: each detector's
    own list, best first; `dense` reaches down to thresholds.candidate. dropped: boxes that an answer named
    and that cannot be a defect, each with its reason; such a part is no clean pass. failed: why an answer
    was cut or did not parse, else None. timings_ms: preprocess, vision, dense, prefill, decode.
    strongest_rejected: the largest presence of one that stayed under its threshold and lies on no reported
    defect, 0 when nothing was near. novelty: above 1 the part is unlike the calibration pictures; None
    where the bundle does not know. looked_again: tiles that had a second look.
    """

    defects: tuple[CandidateDefect, ...]
    dense: tuple[CandidateDefect, ...]
    words: tuple[CandidateDefect, ...]
    dropped: tuple[CandidateDefect, ...]
    timings_ms: dict[str, float]
    passes: Passes
    failed: str | None
    strongest_rejected: float = 0.0
    novelty: float | None = None
    looked_again: int = 0

"""Pictures with drawn truths and detections, for the tests of this room."""

from __future__ import annotations

import numpy as np

from orinspect.evaluation.scores import NamedBox, ScoredPicture

TYPES = ("open", "short", "spur")


def box(kind: str, x: float, confidence: float = 1.0, side: float = 40.0) -> NamedBox:
    """A square box on one line."""
    return NamedBox(kind, (x, 0.0, x + side, side), confidence)


def drawn_pictures(count: int, seed: int, hit: float = 0.8) -> list[ScoredPicture]:
    """Pictures with one to four true boxes, found with a chance of `hit`, and some inventions."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        kinds = rng.choice(TYPES, size=int(rng.integers(1, 5)))
        truth = tuple(box(str(kind), 100.0 * index) for index, kind in enumerate(kinds))
        said = [box(one.type, one.bbox_xyxy[0] + 2.0, float(rng.uniform(0.4, 1.0)))
                for one in truth if rng.random() < hit]
        said += [box(str(rng.choice(TYPES)), 1000.0 + 100.0 * index, float(rng.uniform(0.3, 0.9)))
                 for index in range(int(rng.integers(0, 2)))]
        tail = [box(one.type, one.bbox_xyxy[0], 0.05) for one in truth if rng.random() < 0.5]
        pictures.append(ScoredPicture(truth, tuple(said), (*said, *tail)))
    return pictures

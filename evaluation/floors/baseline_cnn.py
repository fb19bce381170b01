"""Floor 2: difference boxes named by a small network, trained in the same run, in minutes, in numpy.

Candidates come from the XOR of part and template with loose settings; the network sees a window of part
and template around each and says one of the defect types or "none". A model of ours that does not beat it
does not earn its place. It is trained on the data set's training boards (or on training scenes), never on
rows that are scored, and it is not stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..scores import IOU_MIN, NamedBox, iou_matrix
from ..sets.example import Example
from ..terminal import Progress
from .baseline_xor import XorSettings, aligned_template, difference_boxes
from .small_cnn import Floats, SmallCnn

# Looser than floor 1: the network throws out what is not a defect.
CANDIDATES = XorSettings(band_px=3, open_px=3, close_px=9, min_area=5)
WINDOW_PX = 48
# Windows are kept a little larger while training, so that they can be shifted.
JITTER_PX = 4
LARGE_FACTOR = 1.25
BATCH = 64
PEAK_RATE = 2e-3


@dataclass(frozen=True)
class TrainedFloor:
    """The trained classifier and its type names; the last class is "none"."""

    network: SmallCnn
    types: tuple[str, ...]

    def detections(self, example: Example) -> tuple[tuple[NamedBox, ...], tuple[NamedBox, ...]]:
        """(boxes that it stands by, the same and doubtful ones for ranking) for one part."""
        boxes = [box for box, _ in difference_boxes(example.golden, example.image, CANDIDATES)]
        windows = candidate_windows(example, boxes, WINDOW_PX)
        chances = self.network.probabilities(_floats(windows))
        named = [NamedBox(self.types[int(row[:-1].argmax())], box.bbox_xyxy, float(row[:-1].max()))
                 for box, row in zip(boxes, chances, strict=True)]
        sure = [box for box, row in zip(named, chances, strict=True) if row[-1] < row[:-1].max()]
        return _without_overlaps(sure), _without_overlaps(named)


def floor_from_examples(
    examples: Iterable[Example], types: Sequence[str], *, seed: int = 0, windows_seen: int = 60_000,
    progress: Progress | None = None,
) -> TrainedFloor:
    """Train the floor on `examples`: `windows_seen` augmented windows, Adam, cosine to zero, seeded.

    `progress(done, total, text)` is called after each example read (total 0: unknown) and every 20 batches.
    """
    rng = np.random.default_rng([seed, 7])
    windows, labels = _training_windows(examples, types, progress)
    network = SmallCnn(WINDOW_PX, 2, len(types) + 1, rng)
    steps = max(1, windows_seen // BATCH)
    loss = 0.0
    for step in range(steps):
        chosen = rng.integers(0, len(labels), BATCH)
        rate = PEAK_RATE * min(1.0, (step + 1) / 50) * 0.5 * (1.0 + np.cos(np.pi * step / steps))
        batch = np.stack([_augmented(windows[index], rng) for index in chosen])
        now = network.train_step(_floats(batch), labels[chosen], float(rate))
        loss = now if step == 0 else 0.95 * loss + 0.05 * now
        if progress and (step % 20 == 19 or step == steps - 1):
            progress(step + 1, steps, f"CNN floor: training, loss {loss:.3f}")
    return TrainedFloor(network, tuple(types))


def candidate_windows(example: Example, boxes: Sequence[NamedBox], side_px: int) -> npt.NDArray[np.uint8]:
    """[len(boxes), side_px, side_px, 2] uint8: part and aligned template around every box.

    At the picture's own scale where the box fits, else scaled down to hold it; the edge is repeated outside.
    """
    template = aligned_template(example.golden, example.image, CANDIDATES.max_shift_px)
    both = np.dstack([example.image, template])
    windows = np.empty((len(boxes), side_px, side_px, 2), np.uint8)
    for index, box in enumerate(boxes):
        x1, y1, x2, y2 = box.bbox_xyxy
        scale = max(1.0, LARGE_FACTOR * max(x2 - x1, y2 - y1) / WINDOW_PX)
        offset = scale * side_px / 2.0
        source = np.array([[scale, 0.0, (x1 + x2) / 2.0 - offset], [0.0, scale, (y1 + y2) / 2.0 - offset]])
        windows[index] = cv2.warpAffine(both, source, (side_px, side_px), borderMode=cv2.BORDER_REPLICATE,
                                        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return windows


def _training_windows(
    examples: Iterable[Example], types: Sequence[str], progress: Progress | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Windows [N, S, S, 2] with S = WINDOW_PX + 2 JITTER_PX, and labels [N]; the true boxes are added."""
    windows, labels = [], []
    for count, example in enumerate(examples, start=1):
        boxes = [box for box, _ in difference_boxes(example.golden, example.image, CANDIDATES)]
        overlap = iou_matrix(boxes, example.truth)
        for row in overlap:
            best = int(row.argmax()) if len(row) else 0
            is_defect = len(row) > 0 and row[best] > IOU_MIN
            labels.append(types.index(example.truth[best].type) if is_defect else len(types))
        labels += [types.index(box.type) for box in example.truth]
        windows.append(candidate_windows(example, [*boxes, *example.truth], WINDOW_PX + 2 * JITTER_PX))
        if progress:
            progress(count, 0, "CNN floor: reading training parts")
    if not labels:
        raise ValueError("the CNN floor needs training examples with candidates; received none")
    return np.concatenate(windows), np.array(labels, np.int64)


def _augmented(window: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A shifted, mirrored, turned copy [WINDOW_PX, WINDOW_PX, 2]; the template up to a pixel further."""
    top, left = rng.integers(1, 2 * JITTER_PX, size=2)
    extra_y, extra_x = rng.integers(-1, 2, size=2)
    part = window[top : top + WINDOW_PX, left : left + WINDOW_PX, 0]
    top, left = top + extra_y, left + extra_x
    template = window[top : top + WINDOW_PX, left : left + WINDOW_PX, 1]
    turned = np.rot90(np.dstack([part, template]), int(rng.integers(4)))
    return np.ascontiguousarray(turned[::-1] if rng.random() < 0.5 else turned)


def _floats(windows: npt.NDArray[np.uint8]) -> Floats:
    """-1..1 float32."""
    return windows.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def _without_overlaps(boxes: Sequence[NamedBox]) -> tuple[NamedBox, ...]:
    """Non-maximum suppression over all types at IoU 0.33, most confident first."""
    kept: list[NamedBox] = []
    for box in sorted(boxes, key=lambda one: -one.confidence):
        if not kept or float(iou_matrix([box], kept).max()) <= IOU_MIN:
            kept.append(box)
    return tuple(kept)

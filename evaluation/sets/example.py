"""What every data set gives: rows, and what reading a row gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...runtime.capture.frame import Frame
from ...runtime.errors import DataSetError
from ..scores import NamedBox

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TrueSize:
    """What a calliper would read on one true defect: smallest rotated rectangle, and area."""

    length_mm: float
    width_mm: float
    area_mm2: float


@dataclass(frozen=True)
class Example:
    """One part with its truth: pictures uint8 [H, W] or [H, W, 3] BGR, boxes (x1, y1, x2, y2) px in the part.

    `template` is None where a part is looked at alone. `truth_sizes` and `masks` (bool [H, W]) go with
    `truth`, box by box, or are empty where nobody knows them. `ignored` boxes (crowd, difficult, a class
    that is mapped to "ignore") are neither to be found nor wrong to find. `label` is the one class of the
    whole picture where the data set gives pictures a class.
    """

    name: str
    group: str
    image: Picture
    template: Picture | None
    truth: tuple[NamedBox, ...]
    is_labelled: bool = True  # without labels an empty truth says nothing
    earlier: tuple[Picture, ...] = ()  # frames of a clip before `image`, oldest first
    mm_per_px: float | None = None
    truth_sizes: tuple[TrueSize | None, ...] = ()
    masks: tuple[Mask | None, ...] = ()
    ignored: tuple[NamedBox, ...] = ()
    label: str | None = None
    is_simulated: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the data set says that this part has no defect."""
        return self.is_labelled and not self.truth and not self.ignored

    @property
    def golden(self) -> Picture:
        """The template; DataSetError for a part that has none."""
        if self.template is None:
            raise DataSetError(f"{self.name} has no template to compare with; use a data set of pairs")
        return self.template

    def frame(self, sequence: int) -> Frame:
        """The camera frame that the inspector takes; the truth stays behind."""
        return Frame(image=self.image, template=self.template, sequence=sequence, captured_at=0.0,
                     monotonic_ns=0, source=self.group, part_id=self.name, truth=None,
                     mm_per_px=self.mm_per_px, is_simulated=self.is_simulated, earlier=self.earlier)


@dataclass(frozen=True)
class Row:
    """One row of a data set: its name as the data set has it, its group, and a way to read it.

    Rows of one `group` show the same board, tile or capture session: they are never on both sides of a split,
    and are drawn together in a bootstrap. A row without such kin is a group of its own.
    """

    name: str
    group: str
    read: Callable[[], Example]

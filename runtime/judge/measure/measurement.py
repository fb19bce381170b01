"""What the calipers say about one defect: twelve dimensions with uncertainties, reasons for nulls."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ...report import Measure, Quantity, SizeMm

__all__ = ["DIMENSIONS", "MEASURES", "NO_DEPTH", "Box", "Measure", "Measurement", "nothing_measured"]

DIMENSIONS: dict[str, tuple[str, ...]] = {
    "length": ("length",),
    "width": ("width",),
    "area": ("area",),
    "aspect": ("aspect",),
    "orientation": ("orientation",),
    "roundness": ("roundness",),
    "colour": ("colour_rgb", "colour_lab"),
    "colour_difference": ("delta_e",),
    "contrast": ("contrast",),
    "texture": ("texture",),
    "edge_sharpness": ("edge_sharpness",),
    "distance": ("distance",),
}
"""The twelve dimensions and the names of their measures; a colour is said in two ways."""

MEASURES: tuple[str, ...] = tuple(name for names in DIMENSIONS.values() for name in names)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Measurement:
    """What was measured in one box.

    `measures` holds the names of `MEASURES`; sizes are in mm and mm2 with a scale, in px and px2 without one.
    `pixels` holds length, width, area and distance in pixels whatever the scale. What is missing from
    `measures`, and what cannot be measured at all, stands in `nulls` with its reason; a `size_mm` path of
    there names the report's field. `notes` are true sentences about the sizes, such as `cut_at_picture_edge`
    (the length is a lower bound). `mask` bool [h, w] is the segmented defect, its top left pixel at
    `origin_xy`; `contour_xy` float64 [n, 2] lies on its sub-pixel outline, unordered, in picture coordinates
    (the centre of the first pixel is at 0.5, 0.5); `rectangle_xy` float64 [4, 2] are the corners of the
    smallest rotated rectangle.
    """

    measures: dict[str, Measure] = field(default_factory=dict)
    pixels: dict[str, Measure] = field(default_factory=dict)
    nulls: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    mask: npt.NDArray[np.bool_] | None = None
    origin_xy: tuple[int, int] = (0, 0)
    contour_xy: npt.NDArray[np.float64] | None = None
    rectangle_xy: npt.NDArray[np.float64] | None = None

    @property
    def size_mm(self) -> SizeMm | None:
        """Length, width and area as the report carries them; None without a scale or without a defect."""
        named = (("length", "mm"), ("width", "mm"), ("area", "mm2"))
        length, width, area = (self._quantity(*of) for of in named)
        if length is None and width is None and area is None:
            return None
        return SizeMm(length, width, area)

    def _quantity(self, name: str, unit: str) -> Quantity | None:
        measure = self.measures.get(name)
        if measure is None or measure.unit != unit or not isinstance(measure.value, float | int):
            return None
        if measure.expanded_uncertainty is None:
            return None
        return Quantity(float(measure.value), measure.expanded_uncertainty, measure.k)


NO_DEPTH = "no_depth_from_one_picture"
"""Why depth is null: one picture from above holds no height; shading is no measure of it."""


def nothing_measured(reason: str, notes: tuple[str, ...] = ()) -> Measurement:
    """A measurement that holds nothing, every dimension null for the same reason."""
    nulls = dict.fromkeys((*MEASURES, "size_mm"), reason)
    return Measurement(nulls={**nulls, "depth": NO_DEPTH}, notes=notes)

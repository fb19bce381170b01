"""The cameras that look at simulated parts.

`scenes:pcb?seed=1&fps=5&style=grey&parts=12&good=0.25` shows boards beside their templates,
`scenes:metal?seed=1&parts=12&surface=brushed&good=0.25&size_px=512` metal surfaces in colour without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

from .frame import Clock, Frame, Picture
from .scenes import STYLES, SceneDefect, pcb_scene
from .scenes.look import MOST_MISREGISTRATION_PX
from .scenes.metal import SURFACES, metal_scene
from .scenes.metal.scene import LARGEST_PX, MOST_DEFECTS
from .scenes.metal.scene import SMALLEST_PX as SMALLEST_METAL_PX
from .scenes.pcb import SMALLEST_PX
from .sources import Pace, Resume, SourceText

_SHARED = ("seed", "fps", "parts", "defects", "good", "size_px")
_SEED_STEP = 100_000

_Part = tuple[Picture, Picture | None, tuple[SceneDefect, ...], float]
"""Picture, template, truth and millimetres per pixel."""


def scene_seed(seed: int, index: int) -> int:
    """The part `index` (from 0) of a run with `seed`; runs of other seeds share no part."""
    return seed * _SEED_STEP + index


def is_good(index: int, share: float) -> bool:
    """Whether part `index` (from 0) is one without defects: `share` of all parts, evenly spread."""
    return int((index + 1) * share) > int(index * share)


class SceneCamera:
    """Endless simulated parts, or `parts` of them, with their truth; the same source gives the same parts."""

    def __init__(self, text: SourceText, clock: Clock, sleep: Callable[[float], None],
                 resume: Resume) -> None:
        products = {"pcb": _boards, "metal": _surfaces}
        if text.path not in products:
            known = ", ".join(f"scenes:{name}" for name in products)
            raise text.refused_path(f"the only scenes are {known}")
        self._part = products[text.path](text)
        self._source, self._clock = text.text, clock
        self._seed = text.whole("seed", 0, 1)
        self._parts = text.whole("parts", 1, None)
        self._good = text.number("good", 0.0, zero=True)
        if self._good > 1:
            raise text.refused("good", "the share of parts without defects, 0 to 1")
        self._pace = Pace(text.number("fps", None), clock.monotonic_ns, sleep)
        self._start = resume.after
        self._closed = False

    def __enter__(self) -> SceneCamera:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End `frames` at its next step."""
        self._closed = True

    def frames(self) -> Iterator[Frame]:
        """One frame a part, at the pace of `fps`, or as fast as they are asked for."""
        index = self._start
        while not self._closed and (self._parts is None or index < self._parts):
            image, template, truth, mm_per_px = self._part(scene_seed(self._seed, index),
                                                           is_good(index, self._good))
            self._pace.wait()
            yield Frame(
                image=image, template=template, sequence=index + 1,
                captured_at=self._clock.unix_s(), monotonic_ns=self._clock.monotonic_ns(),
                source=self._source, part_id=f"scenes-{self._seed}-{index:04d}", is_simulated=True,
                truth=truth, mm_per_px=mm_per_px,
            )
            index += 1


def _boards(text: SourceText) -> Callable[[int, bool], _Part]:
    """What draws the board of a seed, good or with defects; CaptureError for a bad parameter."""
    text.allow((*_SHARED, "style", "misregistration_px"))
    chosen = text.options.get("style", "binary")
    styles = [style for style in STYLES if style == chosen]
    if not styles:
        raise text.refused("style", f"one of {', '.join(STYLES)}")
    defects, size_px = text.whole("defects", 0, None), text.whole("size_px", SMALLEST_PX, 640)
    misregistration_px = text.number("misregistration_px", 4.0, zero=True)
    if misregistration_px > MOST_MISREGISTRATION_PX:
        raise text.refused("misregistration_px", f"0 to {MOST_MISREGISTRATION_PX}")

    def part(seed: int, good: bool) -> _Part:
        scene = pcb_scene(seed, size_px=size_px, style=styles[0], defects=0 if good else defects,
                          misregistration_px=misregistration_px)
        return scene.image, scene.template, scene.defects, scene.mm_per_px

    return part


def _surfaces(text: SourceText) -> Callable[[int, bool], _Part]:
    """What draws the metal surface of a seed, good or not; CaptureError for a bad parameter."""
    text.allow((*_SHARED, "surface"))
    chosen = text.options.get("surface")
    surface = next((name for name in SURFACES if name == chosen), None)
    if chosen is not None and surface is None:
        raise text.refused("surface", f"one of {', '.join(SURFACES)}")
    defects, size_px = text.whole("defects", 0, None), text.whole("size_px", SMALLEST_METAL_PX, 512)
    if size_px > LARGEST_PX:
        raise text.refused("size_px", f"{SMALLEST_METAL_PX} to {LARGEST_PX}")
    if defects is not None and defects > MOST_DEFECTS:
        raise text.refused("defects", f"0 to {MOST_DEFECTS}")
    share_is_given = "good" in text.options

    def part(seed: int, good: bool) -> _Part:
        scene = metal_scene(seed, size_px=size_px, surface=surface, defects=0 if good else defects)
        if share_is_given and not good and defects is None and not scene.defects:
            # Left alone, a fifth of the surfaces is good: beyond the share that was asked for.
            scene = metal_scene(seed, size_px=size_px, surface=surface, defects=1)
        return scene.image, None, scene.defects, scene.mm_per_px

    return part

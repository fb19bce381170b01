"""The camera that looks at simulated boards: `scenes:pcb?seed=1&fps=5&style=grey&parts=12&good=0.25`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

from .frame import Clock, Frame
from .scenes import STYLES, pcb_scene
from .scenes.look import MOST_MISREGISTRATION_PX
from .scenes.pcb import SMALLEST_PX
from .sources import Pace, SourceText

_PARAMETERS = ("seed", "fps", "style", "parts", "defects", "good", "size_px", "misregistration_px")
_SEED_STEP = 100_000


def scene_seed(seed: int, index: int) -> int:
    """The board of part `index` (from 0) of a run with `seed`; runs of other seeds share no board."""
    return seed * _SEED_STEP + index


def is_good(index: int, share: float) -> bool:
    """Whether part `index` (from 0) is one without defects: `share` of all parts, evenly spread."""
    return int((index + 1) * share) > int(index * share)


class SceneCamera:
    """Endless simulated parts, or `parts` of them, with their truth; the same source gives the same parts."""

    def __init__(self, text: SourceText, clock: Clock, sleep: Callable[[float], None]) -> None:
        text.allow(_PARAMETERS)
        if text.path != "pcb":
            raise text.refused_path("the only scenes are scenes:pcb")
        style = text.options.get("style", "binary")
        if style not in STYLES:
            raise text.refused("style", f"one of {', '.join(STYLES)}")
        self._style = style
        self._source, self._clock = text.text, clock
        self._seed = text.whole("seed", 0, 1)
        self._parts = text.whole("parts", 1, None)
        self._defects = text.whole("defects", 0, None)
        self._good = text.number("good", 0.0, zero=True)
        if self._good > 1:
            raise text.refused("good", "the share of parts without defects, 0 to 1")
        self._size_px = text.whole("size_px", SMALLEST_PX, 640)
        self._misregistration_px = text.number("misregistration_px", 4.0, zero=True)
        if self._misregistration_px > MOST_MISREGISTRATION_PX:
            raise text.refused("misregistration_px", f"0 to {MOST_MISREGISTRATION_PX}")
        self._pace = Pace(text.number("fps", None), clock.monotonic_ns, sleep)
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
        index = 0
        while not self._closed and (self._parts is None or index < self._parts):
            defects = 0 if is_good(index, self._good) else self._defects
            scene = pcb_scene(scene_seed(self._seed, index), size_px=self._size_px, style=self._style,
                              defects=defects, misregistration_px=self._misregistration_px)
            self._pace.wait()
            yield Frame(
                image=scene.image, template=scene.template, sequence=index + 1,
                captured_at=self._clock.unix_s(), monotonic_ns=self._clock.monotonic_ns(),
                source=self._source, part_id=f"scenes-{self._seed}-{index:04d}", is_simulated=True,
                truth=scene.defects, mm_per_px=scene.mm_per_px,
            )
            index += 1

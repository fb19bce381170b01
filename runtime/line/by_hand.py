"""One picture by hand: `orinspect inspect`, the same report without a line."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..capture.clock import SystemClock, boot_id
from ..capture.folder import name_as_text, pairs_in_folder
from ..capture.frame import Frame, read_picture
from ..infer.bundle import Bundle
from ..infer.inspector import Inspector
from ..judge.assessment import Setup
from ..judge.scale import read_scale
from ..report import Identity, Part, Report, View
from .parts import accepted_part, report_of_part
from .station import bundle_identity


def inspect_pictures(
    bundle: str | Path,
    image: str | Path,
    *,
    template: str | Path | None = None,
    recipe_id: str | None = None,
    threads: int = 2,
    scale: str | Path | None = None,
    clock: SystemClock | None = None,
) -> Report:
    """One picture (and its golden template) by hand: the report that the service would publish.

    `image` may be a folder of pictures in natural order: the frames of one clip. `scale` is a file of
    `orinspect calibrate scale`: whoever gives it says that its camera took the picture.
    """
    clock = clock or SystemClock()
    site_scale = None if scale is None else read_scale(scale)
    paths = [part for part, _ in pairs_in_folder(Path(image))] if Path(image).is_dir() else [Path(image)]
    *earlier, last = (read_picture(path) for path in paths)
    frame = Frame(
        image=last,
        earlier=tuple(earlier),
        template=None if template is None else read_picture(template),
        sequence=1,
        captured_at=clock.unix_s(),
        monotonic_ns=clock.monotonic_ns(),
        source=f"picture:{name_as_text(Path(image).name)}",
        part_id=name_as_text(Path(image).stem),
        is_simulated=False,
        truth=None,
        mm_per_px=None,
    )
    opened = Bundle.open(bundle)
    with Inspector(opened, recipe_id, threads) as inspector:
        setup = Setup(
            device_id="workstation",
            station_id="by-hand",
            boot_id=boot_id(),
            recipe=inspector.recipe,
            configuration=Identity("by-hand", None, hashlib.sha256(b"").hexdigest()),  # there is none
            bundle=bundle_identity(opened, "onnxruntime"),
            scale=site_scale,
            judgement=inspector.judgement,
        )
        view = View("picture" if site_scale is None else site_scale.camera_id or "picture")
        trigger = accepted_part(frame, setup, clock, Part(frame.part_id, setup.recipe.product), view)
        return report_of_part(frame, trigger, 1, inspector, setup, clock)

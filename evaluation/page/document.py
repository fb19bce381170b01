"""The result page: `DIR/index.html` with `DIR/pictures/*.png` and `DIR/result.json`.

One folder that can be copied anywhere: no script, no font, nothing from a network. Pictures are read again
only for the mistakes that are shown.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from ...runtime.errors import DataSetError
from ...runtime.recipe import Recipe
from ..inspected import EvaluatedPart
from ..rates.tally import Tally
from ..scorecard import part_verdicts, scored_pictures
from ..scores import ScoredPicture
from ..sets.example import Row
from ..terminal import Progress
from . import sections
from .crops import mistake_picture
from .mistakes import Mistake, worst_false_alarms, worst_misses

MOST_SHOWN = 12
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
       color: #222; background: #fff }
h2 { margin-top: 2.2rem; border-bottom: 1px solid #ccc } code { background: #f3f3f3; padding: .1em .3em }
pre { background: #f3f3f3; padding: .7em; white-space: pre-wrap }
table { border-collapse: collapse; margin: 1rem 1.5rem 1rem 0; display: inline-table; vertical-align: top }
th, td { border: 1px solid #ddd; padding: .2em .6em; text-align: left } th { background: #f7f7f7 }
td.n, table.confusion td { text-align: right; font-variant-numeric: tabular-nums } caption { text-align: left;
color: #666; font-size: .9em } svg { max-width: 100%; height: auto } svg text { font: 11px sans-serif }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 1rem }
figure { margin: 0 } figure img { max-width: 100%; border: 1px solid #ccc } figcaption { font-size: .85em }
.true { color: #007a1c } .said { color: #c01818 }
"""


@dataclass(frozen=True)
class PageInput:
    """What the page shows: the result object, the parts behind it, and the rows that can be read again."""

    result: dict[str, Any]
    parts: Sequence[EvaluatedPart]
    rows: Sequence[Row]
    recipe: Recipe
    command: str


def write_page(folder: Path, page: PageInput, progress: Progress | None = None) -> None:
    """Write the page into `folder` (made where it is missing; a page in it is replaced, other files stay).

    DataSetError when it cannot be written. index.html comes last and whole.
    """
    both = scored_pictures(page.parts, "both", page.recipe.thresholds)
    verdicts = part_verdicts(page.parts, both)
    misses = worst_misses(page.parts, both, verdicts, MOST_SHOWN)
    alarms = worst_false_alarms(both, verdicts, MOST_SHOWN)
    named = {**{f"miss-{number:02d}.png": one for number, one in enumerate(misses, 1)},
             **{f"alarm-{number:02d}.png": one for number, one in enumerate(alarms, 1)}}
    try:
        _write_pictures(folder / "pictures", named, page, both, progress)
        _write_whole(folder / "result.json", json.dumps(page.result, indent=1) + "\n")
        _write_whole(folder / "index.html", _document(page, both, named))
    except OSError as error:
        raise DataSetError(f"{folder}: the page cannot be written: {error.strerror or error}") from error


def _write_pictures(
    folder: Path, named: dict[str, Mistake], page: PageInput, both: Sequence[ScoredPicture],
    progress: Progress | None,
) -> None:
    """A PNG a mistake; those of an earlier page go."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("miss", "alarm"):
        for old in folder.glob(f"{kind}-[0-9][0-9].png"):
            old.unlink()
    for number, (name, mistake) in enumerate(named.items(), start=1):
        example = page.rows[mistake.index].read()
        template = example.template
        if template is not None and template.shape[:2] != example.image.shape[:2]:
            template = None
        picture = both[mistake.index]
        drawn = mistake_picture(example.image, template, mistake.box, picture.truth, picture.detections)
        is_made, png = cv2.imencode(".png", drawn)
        if not is_made:
            raise DataSetError(f"{name} of {example.name} cannot be encoded as PNG")
        (folder / name).write_bytes(png.tobytes())
        if progress:
            progress(number, len(named), "page")


def _document(page: PageInput, both: Sequence[ScoredPicture], named: dict[str, Mistake]) -> str:
    """The whole page."""
    result = page.result
    bundle = result["bundle"]
    title = f"{result['dataset']}: bundle {bundle['name']}"
    warp = "" if result["warp_seed"] is None else f", templates warped with seed {result['warp_seed']}"
    chapters = [
        ("Figures", sections.figures_section(result)),
        ("Against the other bundle", sections.against_section(result)),
        ("Verdicts of parts", sections.verdict_section(result) + sections.alarm_chart(result)),
        ("Worst misses", _gallery(page, named, "miss")),
        ("Worst false alarms", _gallery(page, named, "alarm")),
        ("Confusion", sections.confusion_section(result)),
        ("Precision and recall", sections.precision_recall_chart(Tally.of(both), page.recipe.types)),
        ("Confidence", sections.reliability_chart(result)),
        ("Sizes", sections.size_section(result)),
        ("Time", sections.cost_section(result)),
    ]
    body = "".join(f"<h2>{html.escape(name)}</h2>{text}" for name, text in chapters if text)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
        f"<p>{result['parts']} parts ({html.escape(str(result['split']))}{html.escape(warp)}), bundle "
        f"{html.escape(bundle['id'])} {html.escape(bundle['precision'])}, recipe "
        f"{html.escape(result['recipe'])}. A detection is right when its type is right and its IoU with a "
        f"true box that nobody took yet is above {result['iou_min']}.</p>"
        f"<p>Made by</p><pre>{html.escape(page.command)}</pre>"
        f'<p>Every figure of this page stands in <a href="result.json">result.json</a>.</p>{body}'
        "</body></html>\n"
    )


def _gallery(page: PageInput, named: dict[str, Mistake], kind: str) -> str:
    """The pictures of one kind of mistake with their captions."""
    figures = []
    for name, mistake in named.items():
        if not name.startswith(kind):
            continue
        part = page.parts[mistake.index]
        figures.append(f'<figure><img src="pictures/{name}" alt="{html.escape(_words(mistake), quote=True)}">'
                       f"<figcaption><code>{html.escape(part.name)}</code> {html.escape(_words(mistake))}; "
                       f"the part: {html.escape(mistake.disposition)}</figcaption></figure>")
    if not figures:
        return "<p>None.</p>"
    about = ('<p>Left the part with its <span class="true">true</span> and <span class="said">reported'
             "</span> boxes, then the bare part, then the template where there is one.</p>")
    return f'{about}<div class="pictures">{"".join(figures)}</div>'


def _words(mistake: Mistake) -> str:
    """One mistake in words."""
    x1, y1, x2, y2 = mistake.box.bbox_xyxy
    place = f"at ({(x1 + x2) / 2:.0f}, {(y1 + y2) / 2:.0f}), {x2 - x1:.0f} x {y2 - y1:.0f} px"
    if mistake.true is None and mistake.said is not None:
        return f"{mistake.said.type} {mistake.said.confidence:.2f} where nothing is, {place}"
    true = mistake.box.type
    if mistake.said is not None:
        return f"{true} taken for {mistake.said.type} {mistake.said.confidence:.2f}, {place}"
    return f"{true} missed, strongest candidate {mistake.evidence:.2f}, {place}"


def _write_whole(path: Path, text: str) -> None:
    """Replace a file at once."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)

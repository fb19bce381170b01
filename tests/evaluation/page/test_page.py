"""The result page: complete, escaped, free of scripts and networks; its pictures show what they say."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from orinspect.evaluation.evaluate import evaluate_bundle
from orinspect.evaluation.inspected import EvaluatedPart
from orinspect.evaluation.page.charts import Axes, Line, line_chart
from orinspect.evaluation.page.crops import SAID_BGR, SHOWN_PX, TRUE_BGR, mistake_picture, square_around
from orinspect.evaluation.page.document import PageInput, write_page
from orinspect.evaluation.page.mistakes import worst_false_alarms, worst_misses
from orinspect.evaluation.page.sections import against_section
from orinspect.evaluation.rates.paired import Contender, paired_figures
from orinspect.evaluation.rates.resampling import group_weights, resampling_units
from orinspect.evaluation.rates.tally import Tally
from orinspect.evaluation.rates.verdicts import PartVerdict
from orinspect.evaluation.scorecard import scored_parts
from orinspect.evaluation.scores import NamedBox, ScoredPicture
from orinspect.evaluation.sets.example import Example, Row
from orinspect.runtime.errors import DataSetError
from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.infer.inspector import Inspection, Passes
from orinspect.runtime.recipe import DefectType, Recipe

EVIL = '<script>alert("1")</script>'
RECIPE = Recipe("r", "1", "p", "List.", (DefectType("open", "O"), DefectType("short", "S")))


class Tags(HTMLParser):
    """Every tag that opens, every one still open, every address."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _page(name: str = "a/1.jpg") -> PageInput:
    """Two parts: one with a missed open and an invented short, one good and clean."""
    invented = CandidateDefect("short", (200.0, 200.0, 240.0, 240.0), 0.8, "both")
    weak = CandidateDefect("open", (42.0, 40.0, 82.0, 80.0), 0.2, "dense")
    found = Inspection((invented,), (weak,), (), (), {"vision": 1.0}, Passes(), None)
    clean = Inspection((), (), (), (), {"vision": 1.0}, Passes(), None)
    truth = (NamedBox("open", (40.0, 40.0, 80.0, 80.0)),)
    parts = [EvaluatedPart(name, "a", truth, found, 2.0), EvaluatedPart("b", "b", (), clean, 2.0)]
    picture = np.full((320, 300), 90, np.uint8)
    rows = [Row(part.name, part.group, lambda part=part: Example(  # type: ignore[misc]
        part.name, part.group, picture, picture, part.truth)) for part in parts]
    head = {"dataset": EVIL, "split": "all", "warp_seed": None, "recipe": "r", "iou_min": 0.33,
            "bundle": {"name": "b & c", "id": "x", "precision": "int8"}, "baseline": None, "against": None}
    return PageInput({**head, **scored_parts(parts, RECIPE)}, parts, rows, RECIPE, f"orinspect {EVIL}")


def test_the_page_is_well_formed_escaped_and_stands_alone(tmp_path: Path) -> None:
    write_page(tmp_path / "page", _page(name=EVIL))
    text = (tmp_path / "page/index.html").read_text("utf-8")
    tags = Tags()
    tags.feed(text)
    assert not tags.open and "script" not in tags.seen and "link" not in tags.seen
    assert EVIL not in text and "&lt;script&gt;" in text and "b &amp; c" in text
    assert set(tags.addresses) == {"result.json", "pictures/miss-01.png", "pictures/alarm-01.png"}
    for address in tags.addresses:
        assert (tmp_path / "page" / address).is_file()
    assert not re.search(r"https?://|url\(|@import", text)
    assert "open missed, strongest candidate 0.20" in text and "short 0.80 where nothing is" in text
    assert json.loads((tmp_path / "page/result.json").read_text())["parts"] == 2
    assert not list((tmp_path / "page").rglob("*.partial"))


def test_a_few_pictures_of_no_board_are_compared_on_the_page() -> None:
    """Each is a group of its own then, and there is one kind of interval only."""
    pictures = [ScoredPicture((NamedBox("open", (0.0, 0.0, 9.0, 9.0)),), ())] * 3
    names = ["a", "b", "c"]
    tally, verdicts = Tally.of(pictures), [PartVerdict(name, True, "pass", 0, (), 0.0) for name in names]
    resampled = {unit: {"f": tally.precision_recall_f(group_weights(own))[2]}
                 for unit, own in resampling_units(names).items()}
    one = Contender(tally, verdicts, {"f": 0.0}, resampled)
    text = against_section({"against": paired_figures(one, one, names)})
    assert text.count("0.0000") == 5 and "McNemar" in text


def test_a_second_page_replaces_the_pictures_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/miss-09.png").write_bytes(b"old")
    (tmp_path / "pictures/mine.png").write_bytes(b"kept")
    write_page(tmp_path, _page())
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "miss-01.png", "alarm-01.png", "mine.png"}


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("a file")
    with pytest.raises(DataSetError, match="page cannot be written"):
        write_page(tmp_path / "page", _page())


def test_boxes_are_drawn_where_they_are() -> None:
    image = np.full((200, 300), 128, np.uint8)
    box = NamedBox("open", (100.0, 80.0, 148.0, 128.0))
    left, top, side = square_around(box, 300, 200)
    drawn = mistake_picture(image, image, box, (box,), ())
    scale = SHOWN_PX / side
    corner_x, corner_y = round((100 - left) * scale), round((80 - top) * scale)
    assert drawn.shape == (SHOWN_PX, 3 * SHOWN_PX + 16, 3)
    assert tuple(drawn[corner_y, corner_x + 20]) == tuple(drawn[corner_y + 20, corner_x]) == TRUE_BGR
    assert (drawn[:, SHOWN_PX + 8 : 2 * SHOWN_PX + 8] == 128).all()  # the bare part beside it
    red = mistake_picture(image, None, box, (), (box,))
    assert tuple(red[corner_y, corner_x + 20]) == SAID_BGR and red.shape[1] == 2 * SHOWN_PX + 8


@pytest.mark.parametrize("corners", [(0.0, 0.0, 20.0, 20.0), (280.0, 185.0, 300.0, 200.0),
                                     (10.0, 5.0, 290.0, 40.0), (-5.0, 190.0, 20.0, 230.0)])
def test_the_square_stays_inside_the_picture(corners: tuple[float, ...]) -> None:
    left, top, side = square_around(NamedBox("open", corners), 300, 200)
    assert 0 <= left <= left + side <= 300 and 0 <= top <= top + side <= 200
    colour = np.zeros((200, 300, 3), np.uint8)
    assert mistake_picture(colour, None, NamedBox("open", corners), (), ()).shape[0] == SHOWN_PX


def test_the_gravest_come_first() -> None:
    near = CandidateDefect("open", (0.0, 0.0, 40.0, 40.0), 0.3, "dense")
    seen = Inspection((), (near,), (), (), {}, Passes(), None)
    blind = Inspection((), (), (), (), {}, Passes(), None)
    truth = (NamedBox("open", (0.0, 0.0, 40.0, 40.0)),)
    parts = [EvaluatedPart(str(i), "g", truth, one, 1.0) for i, one in enumerate((seen, blind, seen))]
    both = [ScoredPicture(truth, (), ())] * 3
    verdicts = [PartVerdict("", True, kind, 0, (), 0.0) for kind in ("review", "review", "pass")]
    misses = worst_misses(parts, both, verdicts, 3)
    assert [one.index for one in misses] == [2, 1, 0]
    said = [ScoredPicture((), (NamedBox("open", (0.0, 0.0, 9.0, 9.0), sure),)) for sure in (0.5, 0.9, 0.4)]
    verdicts = [PartVerdict("", bad, "reject", 1, (), 0.0) for bad in (True, True, False)]
    assert [one.index for one in worst_false_alarms(said, verdicts, 2)] == [2, 1]


def test_a_chart_is_well_formed_svg_with_escaped_names() -> None:
    line = Line("a < b", [(0.0, 0.0), (0.5, 2.0)], band=[(0.0, 0.0, 0.1), (0.5, 0.4, 0.6)], radius_px=[3.0])
    chart = ElementTree.fromstring(line_chart([line], Axes("x & y", "share"), 'the "title"'))
    assert [child.text for child in chart if child.text and "<" in child.text] == ["a < b"]
    (polyline,) = chart.findall("polyline")
    places = [tuple(map(float, pair.split(","))) for pair in polyline.attrib["points"].split()]
    assert places[0][0] < places[1][0] and places[0][1] > places[1][1] >= 0  # up is up, and inside the frame


@pytest.mark.slow
def test_a_whole_run_leaves_a_page(small_bundle: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    result = evaluate_bundle(small_bundle, "scenes:pcb?seed=3&parts=2&size_px=192&defects=2", threads=1,
                             page=tmp_path, command="orinspect evaluate b 'scenes:pcb'",
                             progress=lambda done, total, text: seen.append(text))
    text = (tmp_path / "index.html").read_text("utf-8")
    assert "orinspect evaluate b &#x27;scenes:pcb&#x27;" in text
    assert json.loads((tmp_path / "result.json").read_text()) == result
    pictures = sorted((tmp_path / "pictures").glob("miss-*.png"))
    missed = sum(row.get("missed", 0) for row in result["confusion"]["rows"].values())
    assert len(pictures) >= min(missed, 12) and ("page" in seen) == bool(pictures)
    for picture in pictures:
        shown = cv2.imread(str(picture))
        assert shown is not None and shown.shape[0] == SHOWN_PX

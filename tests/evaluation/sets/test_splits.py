"""NEU and magnetic tile: training and scoring share no picture, no tile and no capture session."""

from __future__ import annotations

from pathlib import Path

import pytest

from orinspect.evaluation.sets.source import default_split, rows_from_source
from orinspect.evaluation.sets.splits import MAGNETIC_TYPES, NEU_TYPES, magnetic_rows, neu_rows
from orinspect.runtime.errors import DataSetError
from orinspect.tests.evaluation.sets.drawn_sets import draw, draw_mask, voc_xml

NEU_CLASSES = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")


def _neu(folder: Path, pictures: int = 10) -> Path:
    (folder / "annotations").mkdir(parents=True)
    for name in NEU_CLASSES:
        for number in range(1, pictures + 1):
            draw(folder / "images" / f"{name}_{number}.jpg")
            text = voc_xml((name, 5, 5, 20, 20), ("inclusion", 30, 5, 40, 20))
            (folder / "annotations" / f"{name}_{number}.xml").write_text(text)
    return folder


def _tile(folder: Path, kind: str, first: int, step: int = 20, exposures: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
          ) -> None:
    """The exposures of one tile, as the set names them: every one with a frame number of its own."""
    for index, exposure in enumerate(exposures):
        stem = folder / f"MT_{kind}" / "Imgs" / f"exp{exposure}_num_{first + index * step}"
        draw(stem.with_suffix(".jpg"))
        draw_mask(stem.with_suffix(".png"), *([] if kind == "Free" else [(10, 5, 30, 9, 255)]))


@pytest.fixture
def magnetic(tmp_path: Path) -> Path:
    for index in range(8):
        _tile(tmp_path, "Free", 10_000 * (index + 1))
        _tile(tmp_path, "Crack", 10_000 * (index + 1) + 5_000)
    # A broken tile and a free one whose exposures are interleaved: one session.
    _tile(tmp_path, "Break", 200_000)
    _tile(tmp_path, "Free", 200_005)
    return tmp_path


def test_a_fifth_of_every_class_of_neu_is_for_validation(tmp_path: Path) -> None:
    folder = _neu(tmp_path)
    train, held = (neu_rows(folder, split) for split in ("train", "validation"))
    assert len(train) == 48 and not {row.name for row in train} & {row.name for row in held}
    assert [row.name for row in held][:4] == [
        "crazing_5.jpg", "crazing_10.jpg", "inclusion_5.jpg", "inclusion_10.jpg"]
    examples = [row.read() for row in held]
    assert {example.label for example in examples} == set(NEU_TYPES)
    pitted = next(example for example in examples if example.name.startswith("pitted_surface"))
    assert [box.type for box in pitted.truth] == ["pitted", "inclusion"]  # the label is the picture's
    assert pitted.label == "pitted" and pitted.image.ndim == 2 and pitted.template is None


def test_neu_is_recognised_and_its_types_are_held_against_the_recipe(tmp_path: Path) -> None:
    folder = _neu(tmp_path)
    assert [row.name for row in rows_from_source(str(folder))] == [row.name for row in neu_rows(folder)]
    assert default_split(str(folder)) == "validation"
    assert len(rows_from_source(f"neu:{folder}", split="all", types=NEU_TYPES)) == 60
    with pytest.raises(DataSetError, match=r"shows crazing, .* and the recipe knows only open, short"):
        rows_from_source(str(folder), types=("open", "short"))


def test_no_capture_session_of_magnetic_tile_is_on_both_sides(magnetic: Path) -> None:
    train, held = (magnetic_rows(magnetic, split) for split in ("train", "validation"))
    assert not {row.group for row in train} & {row.group for row in held}
    names = {row.name for row in train} | {row.name for row in held}
    assert len(names) == len(train) + len(held) == len(magnetic_rows(magnetic, "all")) == 108
    # Of eight sessions a class, the second and the sixth.
    assert sorted({row.group for row in held}) == ["session20000", "session25000", "session60000",
                                                   "session65000"]
    interleaved = [row for row in train if row.group == "session200000"]
    assert len(interleaved) == 12


def test_a_tile_brings_its_mask_and_a_good_one_nothing(magnetic: Path) -> None:
    rows = rows_from_source(str(magnetic), types=MAGNETIC_TYPES, box_margin_px=2)
    assert rows[0].name == "MT_Free/Imgs/exp1_num_20000.jpg"
    good, crack = rows[0].read(), rows[6].read()
    assert good.is_good and good.label is None
    assert crack.label == "crack" and crack.truth[0].bbox_xyxy == (8.0, 3.0, 32.0, 11.0)
    assert crack.masks[0] is not None and crack.masks[0].sum() == 80


def test_a_defect_that_nobody_marked_is_left_out(magnetic: Path) -> None:
    draw_mask(magnetic / "MT_Crack" / "Imgs" / "exp2_num_25020.png")
    assert "MT_Crack/Imgs/exp2_num_25020.jpg" not in [row.name for row in magnetic_rows(magnetic, "all")]


def test_what_does_not_belong_is_named(magnetic: Path, tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="the split 'half' is unknown"):
        magnetic_rows(magnetic, "half")
    with pytest.raises(DataSetError, match="names of classes built in"):
        rows_from_source(str(magnetic), classes=tmp_path / "classes.json", types=MAGNETIC_TYPES)
    draw(magnetic / "MT_Free" / "Imgs" / "tile7.jpg")
    with pytest.raises(DataSetError, match=r"tile7\.jpg: pictures of magnetic tile are named"):
        magnetic_rows(magnetic)
    (magnetic / "MT_Crack" / "Imgs" / "exp1_num_15000.png").unlink()
    with pytest.raises(DataSetError, match=r"exp1_num_15000\.jpg has no mask"):
        magnetic_rows(magnetic)

"""Pictures from a folder: pairs, one template for all, natural order, and files that are no pictures."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from orinspect.runtime.capture.folder import natural_key
from orinspect.runtime.capture.frame import NO_IMAGE, Frame, camera_from_source, read_picture
from orinspect.runtime.capture.sources import Resume
from orinspect.runtime.errors import CaptureError, PictureError


def write(path: Path, value: int, shape: tuple[int, ...] = (24, 32)) -> None:
    assert cv2.imwrite(str(path), np.full(shape, value, np.uint8))


def frames_of(source: str, keys: Iterable[str | None] = ()) -> list[Frame]:
    with camera_from_source(source, resume=Resume(keys=frozenset(filter(None, keys)))) as camera:
        return list(camera.frames())


def test_pairs_come_in_natural_order_with_their_templates(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write(tmp_path / f"b{number}_test.png", number)
        write(tmp_path / f"b{number}_temp.png", 100 + number)
    frames = frames_of(f"folder:{tmp_path}?mm_per_px=0.02")
    assert [frame.part_id for frame in frames] == ["b1", "b2", "b10"]
    assert [frame.sequence for frame in frames] == [1, 2, 3]
    for frame, number in zip(frames, (1, 2, 10), strict=True):
        assert frame.template is not None
        assert (frame.image == number).all() and (frame.template == 100 + number).all()
        assert not frame.is_simulated and frame.truth is None and frame.mm_per_px == 0.02


def test_one_template_for_all_parts(tmp_path: Path) -> None:
    write(tmp_path / "golden.png", 200)
    write(tmp_path / "p1.png", 1)
    write(tmp_path / "p2.bmp", 2, (24, 32, 3))
    (tmp_path / "notes.txt").write_text("not a part")
    frames = frames_of(f"folder:{tmp_path}?template=golden.png")
    assert [frame.part_id for frame in frames] == ["p1", "p2"]
    for frame in frames:
        assert frame.template is not None and frame.template.shape == frame.image.shape
        assert (frame.template == 200).all()
    assert frames[1].image.shape == (24, 32, 3)


def test_single_pictures_have_no_template(tmp_path: Path) -> None:
    write(tmp_path / "p1.png", 1)
    assert [frame.template for frame in frames_of(f"folder:{tmp_path}")] == [None]


def test_a_part_without_its_template_is_named(tmp_path: Path) -> None:
    write(tmp_path / "b1_test.png", 1)
    with pytest.raises(CaptureError, match=re.escape("b1_temp.png")):
        camera_from_source(f"folder:{tmp_path}")


def test_an_empty_folder_and_a_missing_template_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="holds no pictures"):
        camera_from_source(f"folder:{tmp_path}")
    write(tmp_path / "p1.png", 1)
    with pytest.raises(CaptureError, match=re.escape("'g.png' is neither")):
        camera_from_source(f"folder:{tmp_path}?template=g.png")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_file_that_is_no_picture_is_one_frame_with_a_fault_and_the_others_go_on(
    tmp_path: Path, content: bytes
) -> None:
    write(tmp_path / "p1.png", 1)
    (tmp_path / "p2.png").write_bytes(content)
    write(tmp_path / "p3.png", 3)
    good, broken, last = frames_of(f"folder:{tmp_path}")
    assert good.fault is None and last.fault is None and (last.image == 3).all()
    assert broken.fault is not None and broken.fault.reason_code == "not_inspected.picture"
    assert broken.image is NO_IMAGE and (broken.part_id, broken.sequence) == ("p2", 2)
    assert re.search(rf"p2\.png \({len(content)} bytes\) is not a picture; [^\n]+$", broken.fault.why)


def test_a_file_that_goes_before_it_is_read_is_a_fault_too(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / f"p{number}.png", number)
    with camera_from_source(f"folder:{tmp_path}") as camera:
        frames = camera.frames()
        assert next(frames).fault is None
        (tmp_path / "p2.png").unlink()
        gone = next(frames).fault
    assert gone is not None and "p2.png cannot be read: No such file" in gone.why


def test_a_resumed_folder_gives_what_came_meanwhile_wherever_it_sorts(tmp_path: Path) -> None:
    for number in (2, 3, 4):
        write(tmp_path / f"p{number}.png", number)
    seen = [frame.key for frame in frames_of(f"folder:{tmp_path}")][:2]
    write(tmp_path / "p1.png", 1)  # sorts before all the others
    assert [frame.part_id for frame in frames_of(f"folder:{tmp_path}", seen)] == ["p1", "p4"]
    write(tmp_path / "p2.png", 2, (24, 33))  # another picture under a name that was seen
    assert [frame.part_id for frame in frames_of(f"folder:{tmp_path}", seen)] == ["p1", "p2", "p4"]


def test_a_picture_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"gone\.png cannot be read"):
        read_picture(tmp_path / "gone.png")


def test_a_template_of_another_size_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "b1_test.png", 1)
    write(tmp_path / "b1_temp.png", 1, (24, 33))
    (frame,) = frames_of(f"folder:{tmp_path}")
    assert frame.fault is not None and frame.fault.name == "picture"
    assert re.search(r"32 x 24 pixels and its template .* 33 x 24", frame.fault.why)


def test_grey_and_colour_keep_their_shape(tmp_path: Path) -> None:
    write(tmp_path / "grey.png", 7)
    write(tmp_path / "colour.png", 7, (24, 32, 3))
    assert read_picture(tmp_path / "grey.png").shape == (24, 32)
    assert read_picture(tmp_path / "colour.png").shape == (24, 32, 3)


def test_numbers_in_names_sort_as_numbers() -> None:
    names = ["a10", "a2", "b1", "A1", "7", "a"]
    assert sorted(names, key=natural_key) == ["7", "a", "A1", "a2", "a10", "b1"]


def test_a_frame_refuses_pictures_that_do_not_fit() -> None:
    image = np.zeros((4, 6), np.uint8)

    def frame(picture: object, template: object) -> Frame:
        return Frame(image=picture, template=template, sequence=1, captured_at=0.0,  # type: ignore[arg-type]
                     monotonic_ns=0, source="test")

    assert frame(image, None).template is None
    with pytest.raises(PictureError, match=re.escape("[4, 6] and its template [6, 4]")):
        frame(image, np.zeros((6, 4), np.uint8))
    for wrong in (image.astype(np.float32), np.zeros((4, 6, 4), np.uint8), np.zeros((0, 6), np.uint8)):
        with pytest.raises(PictureError, match="give uint8"):
            frame(wrong, None)


@pytest.mark.parametrize("at", [33, 8])
def test_a_png_that_claims_more_than_it_has_is_refused_before_room_is_taken(tmp_path: Path, at: int) -> None:
    content = bytearray(cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes())
    content[at : at + 4] = b"\x7f\xff\xff\xff"  # two gigabytes
    (tmp_path / "part.png").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PictureError, match="not a picture"):
        read_picture(tmp_path / "part.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_file_name_that_is_no_utf_8_is_a_part_id_that_can_be_stored(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1)
    (tmp_path / "a.png").rename(Path(os.fsdecode(bytes(tmp_path) + b"/p\xff.png")))
    (frame,) = frames_of(f"folder:{tmp_path}")
    assert frame.part_id == "p\\xff"
    assert frame.key is not None and frame.key.encode().startswith(b"p\\xff.png/")


def test_a_folder_whose_name_is_too_long_is_none(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="is not a folder"), camera_from_source("folder:" + "x" * 5000):
        pass

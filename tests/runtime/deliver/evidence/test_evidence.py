"""Evidence: what is kept, what nobody may see, what makes room, and disks that refuse."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.config import EvidenceConfig, PrivacyZone
from orinspect.runtime.deliver.evidence import evidence as module
from orinspect.runtime.deliver.evidence.evidence import Evidence, is_in_sample
from orinspect.runtime.deliver.evidence.picture import (
    Picture,
    annotated,
    encoded,
    without_private_zones,
)
from orinspect.runtime.report import Image, Report
from orinspect.tests.brokers import WAIT_S
from orinspect.tests.report_cases import SCHEMA, report

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
PICTURE = np.random.default_rng(7).integers(0, 256, (128, 128), np.uint8)


def _config(folder: Path, **keys: Any) -> EvidenceConfig:
    # A queue for all of a test: on a busy machine the writer may come to nothing until the end.
    return EvidenceConfig(folder, **{"free_mib": 0, "pass_share": 1.0, "queue": 64, **keys})


def _report(kind: str = "reject", number: int = 1, day: int = 1) -> Report:
    """A report of its own id about PICTURE."""
    result_id = str(uuid.UUID(int=number, version=4))
    image = Image(128, 128, hashlib.sha256(PICTURE.tobytes()).hexdigest())
    return dataclasses.replace(
        report(kind), result_id=result_id, root_result_id=result_id, image=image,
        captured_at=f"2026-01-{day:02d}T06:00:00.000Z",
    )  # fmt: skip


def _keep(evidence: Evidence, given: Report, image: Picture = PICTURE) -> Report:
    with evidence.kept(given, image) as kept:
        return kept


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _base(given: Report) -> str:
    return f"{given.captured_at[:10]}/{given.result_id}.{given.disposition}"


def _read(path: Path) -> Picture:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return np.asarray(picture, np.uint8)


def _why(kept: Report) -> str:
    table = json.loads(kept.to_json())
    assert table["image"]["evidence"] is None
    return str(table["null_reasons"]["image.evidence"])


@pytest.mark.parametrize("kind", ["reject", "review", "failed", "pass"])
def test_a_set_holds_picture_annotation_and_the_committed_report(tmp_path: Path, kind: str) -> None:
    with Evidence(_config(tmp_path)) as evidence:
        kept = _keep(evidence, _report(kind))
    name = _base(kept)
    assert kept.image is not None
    assert kept.image.evidence == name
    assert _names(tmp_path) == {f"{name}.raw.png", f"{name}.annotated.png", f"{name}.json"}
    assert (tmp_path / f"{name}.json").read_text(encoding="utf-8") == kept.to_json()
    VALIDATOR.validate(json.loads(kept.to_json()))
    raw = _read(tmp_path / f"{name}.raw.png")
    assert hashlib.sha256(raw.tobytes()).hexdigest() == kept.image.sha256, "what was inspected, bit for bit"
    drawn = _read(tmp_path / f"{name}.annotated.png")
    assert drawn.shape[1:] == (128, 3)
    below = drawn[drawn.shape[0] - 128 :]
    assert np.any(below != raw[..., None]) == bool(kept.defects), "boxes where there are defects, only there"
    assert evidence.counts()["written"] == 1


def test_jpeg_is_smaller_and_named_so(tmp_path: Path) -> None:
    with Evidence(_config(tmp_path, format="jpeg")) as evidence:
        name = _base(_keep(evidence, _report()))
    assert _names(tmp_path) == {f"{name}.raw.jpg", f"{name}.annotated.jpg", f"{name}.json"}


def test_what_was_not_looked_at_leaves_nothing(tmp_path: Path) -> None:
    given = report("aborted")
    with Evidence(_config(tmp_path)) as evidence:
        assert _keep(evidence, given) == given
    assert not _names(tmp_path)


def test_the_sample_of_passes_is_the_same_for_ever_and_of_the_share_asked_for(tmp_path: Path) -> None:
    ids = [str(uuid.UUID(int=number, version=4)) for number in range(10_000)]
    drawn = [each for each in ids if is_in_sample(each, 0.1, seed=3)]
    assert drawn[:3] == [each for each in ids if is_in_sample(each, 0.1, seed=3)][:3]
    assert 900 < len(drawn) < 1100
    assert set(drawn) != {each for each in ids if is_in_sample(each, 0.1, seed=4)}
    assert set(drawn) <= {each for each in ids if is_in_sample(each, 0.2, seed=3)}
    assert not any(is_in_sample(each, 0.0, 0) for each in ids)
    assert all(is_in_sample(each, 1.0, 0) for each in ids)
    with Evidence(_config(tmp_path, pass_share=0.0)) as evidence:
        assert _why(_keep(evidence, _report("pass"))) == "not_in_sample"
        assert _keep(evidence, _report("reject")).image is not None
    assert {name.split(".")[1] for name in _names(tmp_path)} == {"reject"}


@pytest.mark.parametrize("mode", ["fill", "blur"])
def test_a_private_zone_is_in_no_file(tmp_path: Path, mode: Any) -> None:
    """Two parts that differ in the zone only: their pictures hold nothing that tells them apart but means."""
    zone = PrivacyZone(30, 20, 90, 300, mode)  # beyond the lower edge: what is inside counts
    other = PICTURE.copy()
    other[20:, 30:90] = 255 - other[20:, 30:90]
    found = []
    with Evidence(_config(tmp_path, zones=(zone,))) as evidence:
        parts = [_keep(evidence, _report("reject", n), image) for n, image in ((1, PICTURE), (2, other))]
    for name in map(_base, parts):
        raw, drawn = (_read(tmp_path / f"{name}.{kind}.png") for kind in ("raw", "annotated"))
        outside = np.ones((128, 128), bool)
        outside[20:, 30:90] = False
        assert np.array_equal(raw[outside], PICTURE[outside])
        inside = raw[20:, 30:90]
        if mode == "fill":
            assert not inside.any()
        else:
            assert np.std(np.diff(inside.astype(float))) < 5 < np.std(np.diff(PICTURE.astype(float)))
            assert not np.array_equal(inside, PICTURE[20:, 30:90])
        boxless = drawn[-1, 30:90]  # the last row, which no box of this report reaches
        assert np.array_equal(boxless, np.repeat(raw[-1, 30:90, None], 3, axis=1))
        found.append(inside)
    if mode == "fill":
        assert np.array_equal(found[0], found[1])


def test_a_zone_that_does_not_fit_the_picture_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    alarms: list[tuple[str, str | None]] = []
    zone = PrivacyZone(500, 500, 600, 600)
    with Evidence(_config(tmp_path, zones=(zone,)), alarm=lambda *each: alarms.append(each)) as evidence:
        _keep(evidence, _report())
    assert not _names(tmp_path)
    assert "outside a picture of 128 x 128" in str(alarms[0][1])
    assert evidence.counts()["dropped_not_written"] == 1


def test_the_quota_of_a_class_takes_its_oldest_and_no_other(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (512, 512), np.uint8)  # 0.25 MiB raw, more annotated
    with Evidence(_config(tmp_path, reject_mib=2, pass_mib=2)) as evidence:
        for number in range(1, 9):
            _keep(evidence, _report("reject", number, day=number), noise)
        _keep(evidence, _report("pass", 100, day=1), noise)
    counts = evidence.counts()
    assert counts["written"] == 9
    assert 0 < counts["reject"]["bytes"] <= 2 * 2**20
    assert counts["pass"]["sets"] == 1
    kept = sorted(name for name in _names(tmp_path) if name.endswith(".reject.json"))
    assert len(kept) == counts["reject"]["sets"] < 8
    assert [name[:10] for name in kept] == [f"2026-01-{day:02d}" for day in range(9 - len(kept), 9)]
    assert not (tmp_path / "2026-01-02").exists(), "an empty day goes too"
    total = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert total == sum(counts[each]["bytes"] for each in ("reject", "review", "pass"))


def test_a_restart_finds_the_sets_and_removes_what_a_crash_left_half(tmp_path: Path) -> None:
    with Evidence(_config(tmp_path)) as evidence:
        kinds = ("reject", "pass", "review")
        reports = [_keep(evidence, _report(kind, number)) for number, kind in enumerate(kinds, 1)]
    before = evidence.counts()
    half = tmp_path / "2026-01-01" / "half.reject.raw.png"
    half.write_bytes(b"x")
    (tmp_path / "2026-01-01" / "y.reject.json.partial").write_bytes(b"x")
    (tmp_path / "2026-01-01" / "readme.txt").write_text("not ours")
    with Evidence(_config(tmp_path)) as evidence:
        _keep(evidence, _report("reject", 9))
    after = evidence.counts()
    assert after["reject"]["sets"] == 2
    assert after["pass"] == before["pass"]
    assert not half.exists()
    assert not [name for name in _names(tmp_path) if name.endswith(".partial")]
    assert (tmp_path / "2026-01-01" / "readme.txt").exists()
    assert evidence.release(1) > 0
    assert f"{_base(reports[0])}.json" not in _names(tmp_path), "the oldest went first"
    assert evidence.release(2**40) == sum(after[each]["bytes"] for each in ("reject", "review", "pass")) - (
        before["reject"]["bytes"]
    )
    assert _names(tmp_path) == {"2026-01-01/readme.txt"}


def test_a_result_that_was_not_committed_leaves_no_evidence(tmp_path: Path) -> None:
    with Evidence(_config(tmp_path, queue=1)) as evidence:
        with pytest.raises(RuntimeError), evidence.kept(_report(), PICTURE):
            raise RuntimeError("the outbox refused")
        assert _keep(evidence, _report("reject", 2)).image is not None
    assert {name.split("/")[1].split(".")[0] for name in _names(tmp_path)} == {_report("reject", 2).result_id}


def test_a_full_queue_drops_evidence_and_never_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(picture: Picture, form: str, real: Any = encoded) -> bytes:
        begun.set()
        assert go.wait(WAIT_S)
        return bytes(real(picture, form))

    monkeypatch.setattr(module, "encoded", slow)
    with Evidence(_config(tmp_path, queue=2)) as evidence:
        _keep(evidence, _report("reject", 1))
        assert begun.wait(WAIT_S)
        _keep(evidence, _report("reject", 2))
        lost = _keep(evidence, _report("reject", 3))
        assert _why(lost) == "the queue of the evidence is full"
        VALIDATOR.validate(json.loads(lost.to_json()))
        assert evidence.counts()["dropped_queue_full"] == 1
        go.set()
    assert evidence.counts()["written"] == 2


@contextlib.contextmanager
def _small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A disk of its own; skipped where this machine lets nobody mount."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_keeps_the_newest_and_its_free_space(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (512, 512), np.uint8)
    with (
        _small_disk(tmp_path / "disk", 8) as disk,
        Evidence(_config(disk, free_mib=4, queue=12)) as evidence,
    ):
        for number in range(1, 13):
            _keep(evidence, _report("reject", number, day=number), noise)
        evidence.close(WAIT_S)
        counts = evidence.counts()
        assert (counts["written"], counts["dropped_not_written"]) == (12, 0)
        kept = sorted(name[:10] for name in _names(disk) if name.endswith(".json"))
        assert kept[-1] == "2026-01-12"
        assert 0 < counts["reject"]["bytes"] <= 4 * 2**20


def test_a_disk_filled_by_others_and_a_read_only_one_stop_nothing(tmp_path: Path) -> None:
    alarms: list[str | None] = []
    now = [0.0]
    heard = threading.Event()

    def alarm(code: str, text: str | None) -> None:
        alarms.append(text)
        heard.set()

    def heard_of() -> str | None:
        assert heard.wait(WAIT_S)
        heard.clear()
        return alarms[-1]

    with _small_disk(tmp_path / "disk", 4) as disk:
        others = disk / "others.bin"
        with others.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(2**16)):
                pass
        with Evidence(_config(disk), alarm=alarm, monotonic_s=lambda: now[0]) as evidence:
            _keep(evidence, _report("reject", 1))
            assert "evidence is not written" in str(heard_of())
            assert "evidence is not written" in _why(_keep(evidence, _report("reject", 2)))
            others.unlink()
            now[0] += module.PROBE_S
            _keep(evidence, _report("reject", 3))
            assert heard_of() is None
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            _keep(evidence, _report("reject", 4))
            assert "Read-only" in str(heard_of())
            assert evidence.release(10**9) == 0
        assert {name.split(".")[0] for name in _names(disk)} == {_base(_report("reject", 3)).split(".")[0]}
        assert evidence.counts()["dropped_not_written"] == 3


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with Evidence(_config(tmp_path / "file")) as evidence:
        _keep(evidence, _report())
    assert "evidence" in str(evidence.problem)
    assert evidence.counts()["written"] == 0


KILLED = """
import sys
from pathlib import Path
from orinspect.tests.runtime.deliver.evidence.test_evidence import _config, _keep, _report
from orinspect.runtime.deliver.evidence.evidence import Evidence
with Evidence(_config(Path(sys.argv[1]))) as evidence:
    number = int(sys.argv[2])
    while True:
        number += _keep(evidence, _report("reject", number)).image.evidence is not None
        print(evidence.counts()["written"], flush=True)
"""


def test_kill_9_leaves_whole_sets_only(tmp_path: Path) -> None:
    for run, least in enumerate((3, 8)):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(1000 * (run + 1))]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        while int(child.stdout.readline()) < least:
            pass
        child.kill()
        child.wait(WAIT_S)
        child.stdout.close()
    with Evidence(_config(tmp_path)) as evidence:
        pass
    names = _names(tmp_path)
    sets = {name.removesuffix(".json") for name in names if name.endswith(".json")}
    assert len(sets) >= 11
    assert names == {f"{each}{end}" for each in sets for end in (".raw.png", ".annotated.png", ".json")}
    for each in sets:
        assert _read(tmp_path / f"{each}.raw.png").shape == (128, 128)
        json.loads((tmp_path / f"{each}.json").read_text(encoding="utf-8"))
    assert evidence.counts()["reject"]["sets"] == len(sets)


@pytest.mark.parametrize("shape", [(1, 1), (7, 500), (300, 8, 3), (240, 320, 3)])
def test_pictures_of_any_size_and_colour_are_annotated(shape: tuple[int, ...]) -> None:
    picture = np.full(shape, 90, np.uint8)
    drawn = annotated(picture, _report())
    assert drawn.shape[1:] == (shape[1], 3)
    assert drawn.shape[0] > shape[0]
    assert np.all(picture == 90), "the picture itself is not drawn on"


def test_blurring_a_line_of_text_leaves_no_letter() -> None:
    picture = pcb_scene(3, size_px=256).image.copy()
    text = np.full((30, 120), 255, np.uint8)
    cv2.putText(text, "SN 12345", (4, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0,), 2)
    picture[100:130, 60:180] = text
    blurred = without_private_zones(picture, [PrivacyZone(60, 100, 180, 130, "blur")])[100:130, 60:180]
    assert int(blurred.max()) - int(blurred.min()) < 120 < int(text.max()) - int(text.min())
    assert len(np.unique(cv2.resize(blurred, (6, 2), interpolation=cv2.INTER_AREA))) <= 12

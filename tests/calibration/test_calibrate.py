"""Calibration block by block: the whole graph's choices, resumed after a kill, in the memory of one block."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from orinspect.calibration.blocks import blocks_from_graph
from orinspect.calibration.blockwise.block_pass import RowErrors
from orinspect.calibration.blockwise.forecast import Forecast
from orinspect.calibration.calibrate import _check_room, calibrate, calibration_report, forecast
from orinspect.calibration.choice import Limits, LinearChoice, choose
from orinspect.calibration.int8_graph import int8_from_float
from orinspect.calibration.linears import Weights, linears_of
from orinspect.calibration.ranges import ranges_from_runs
from orinspect.calibration.sessions import Feed, MaskedFeed, Session, inputs_of
from orinspect.export.graph.graphs import GraphFiles
from orinspect.runtime.errors import CheckpointError, EngineError
from orinspect.tests.decoder_inputs import decoder_inputs
from orinspect.tests.linear_graphs import feeds, saved, stacked_graph
from orinspect.tests.parity_cases import CASES

pytestmark = pytest.mark.slow  # all of them together take several seconds

LAYERS = 6
ALWAYS_INT8 = Limits(float_limit=10.0)


class Counted(Sequence[Feed]):
    """Feeds built when they are asked for, as the export's are; `reads` counts."""

    def __init__(self, given: Sequence[Feed]) -> None:
        self._given, self.reads = given, 0

    def __len__(self) -> int:
        return len(self._given)

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return self._given[index]


def _stack(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    return saved(stacked_graph(LAYERS, **changes), folder, "stack.onnx")


def _whole(path: Path, given: Sequence[Feed], limits: Limits | None = None) -> tuple[LinearChoice, ...]:
    """Choices without blocks: one pass over the whole graph."""
    statistics = ranges_from_runs(path, given, threads=1)
    return choose(statistics.values(), Weights(onnx.load(str(path))), limits=limits)


def _same(left: Sequence[LinearChoice], right: Sequence[LinearChoice]) -> None:
    assert [choice.name for choice in left] == [choice.name for choice in right]
    for one, other in zip(left, right, strict=True):
        assert one.mode == other.mode, one.name
        assert one.clip == pytest.approx(other.clip, rel=0.01), one.name
        assert one.error_static == pytest.approx(other.error_static, rel=0.05, abs=1e-4), one.name


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> GraphFiles:
    return CASES["shared"].written(tmp_path_factory.mktemp("shared"))[1]


def _decoder_feeds(files: GraphFiles, count: int = 5) -> list[Feed]:
    """Ragged rows behind a past; what padding and masked slots hold is huge and must count nowhere."""
    given: list[Feed] = []
    for seed in range(count):
        inputs = decoder_inputs(files.shape, seed)
        rows, columns = inputs["embeds"].shape[:2]
        counted = np.ones((rows, columns), bool)
        counted[1, :3] = False
        inputs["embeds"][~counted] = 1e4
        given.append(MaskedFeed(inputs, counted))
    return given


def _vision_feeds(files: GraphFiles) -> list[Feed]:
    draw, size = np.random.default_rng(2), (5, 2, files.shape.patches, files.shape.patch_features)
    return [{"patches": one} for one in draw.uniform(-1, 1, size).astype(np.float32)]


def test_a_decoder_gets_the_choices_of_the_whole_graph(files: GraphFiles, tmp_path: Path) -> None:
    given = _decoder_feeds(files)
    choices = calibrate(files.decoder, given, tmp_path, limits=ALWAYS_INT8, threads=1)
    expected = _whole(files.decoder, given, ALWAYS_INT8)
    needed = calibration_report(files.decoder, tmp_path)["confirmed"]["needed"]
    assert [c for c in choices if c.mode == "float"] == [c for c in choices if c.name in needed]
    _same([c for c in choices if c.name not in needed], [c for c in expected if c.name not in needed])


def test_an_encoder_with_taps_gets_the_choices_of_the_whole_graph(files: GraphFiles, tmp_path: Path) -> None:
    given = _vision_feeds(files)
    choices = calibrate(files.vision, given, tmp_path, threads=1)
    needed = calibration_report(files.vision, tmp_path)["confirmed"]["needed"]
    expected = _whole(files.vision, given)
    _same([c for c in choices if c.name not in needed], [c for c in expected if c.name not in needed])
    assert {c.name for c in choices} >= {"patch_embed", "deepstack.2.fc2", "merger.fc1"}


@pytest.mark.parametrize("component", ["vision", "decoder"])
def test_the_error_that_piles_up_is_that_of_the_whole_int8_graph(
    files: GraphFiles, tmp_path: Path, component: str
) -> None:
    path = getattr(files, component)
    given = _vision_feeds(files) if component == "vision" else _decoder_feeds(files)
    calibrate(path, given, tmp_path, limits=ALWAYS_INT8, threads=1)
    report = calibration_report(path, tmp_path)
    expected = RowErrors()
    model = int8_from_float(onnx.load(str(path)), _whole(path, given, ALWAYS_INT8))
    with Session(path, threads=1) as exact, Session(model.SerializeToString(), threads=1) as int8:
        for feed in given:
            left, right = int8.run(inputs_of(feed)), exact.run(inputs_of(feed))
            for name in right.keys() - {"new_kv"}:
                expected.add(feed, name, left[name], right[name])
    outputs = {name: error for block in report["blocks"] for name, error in block["errors"].items()}
    for name, error in expected.means().items():
        assert 0.001 < error < 0.5
        assert outputs[name] == pytest.approx(error, rel=0.1), name


def test_the_forecast_comes_first_then_each_block(tmp_path: Path) -> None:
    path, said = _stack(tmp_path), list[tuple[str, int, int]]()
    calibrate(path, feeds(4, 64), tmp_path, threads=1, progress=lambda *heard: said.append(heard))
    assert re.fullmatch(
        r"stack: calibration takes about \d+ s, 0\.0 GB of disk and \d\.\d GB of memory"
        r" \(measured on layers\.0\)",
        said[0][0],
    )
    assert said[0][1:] == (1, 1)
    assert said[1 : LAYERS + 1] == [("stack: blocks", index + 1, LAYERS) for index in range(LAYERS)]
    assert said[-1] == ("stack: worst 8 linears on 4 feeds", 1, 1)


def test_a_forecast_counts_every_feed_and_block(tmp_path: Path) -> None:
    path = _stack(tmp_path)
    few = forecast(path, feeds(4, 64), tmp_path, threads=1)
    many = forecast(path, feeds(64, 64), tmp_path, threads=1)
    assert many.disk_bytes == pytest.approx(16 * few.disk_bytes, rel=0.01)
    assert few.disk_bytes >= 4 * 4 * feeds(1, 64)[0]["x"].nbytes  # four streams of four feeds
    assert few.seconds > 0 and few.memory_bytes > 0
    assert sorted(item.name for item in tmp_path.iterdir()) == ["stack.onnx"]  # the trial leaves nothing


def test_too_little_room_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"needs 1000000000\.0 GB for hidden states, .* GB free: choose"):
        _check_room(tmp_path, Forecast(1.0, 10**18, 1, "layers.0"))


_KILLED = """
import os, signal, sys
from pathlib import Path
from orinspect.calibration.calibrate import calibrate
from orinspect.tests.calibration.test_calibrate import Counted
from orinspect.tests.linear_graphs import feeds

class Deadly(Counted):
    def __getitem__(self, index):
        if self.reads == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)

folder = Path(sys.argv[1])
calibrate(folder / "stack.onnx", Deadly(feeds(5, 64)), folder, threads=1)
"""


@pytest.mark.parametrize("reads", [8, 36, 62])  # in the first block, at a block's begin, in an INT8 pass
def test_after_a_kill_it_goes_on_and_chooses_the_same(tmp_path: Path, reads: int) -> None:
    path = _stack(tmp_path)
    undisturbed = Counted(feeds(5, 64))
    expected = calibrate(path, undisturbed, tmp_path / "other", threads=1)
    child = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), str(reads)], check=False, cwd=tmp_path.anchor
    )
    assert child.returncode == -9
    before = len(list((tmp_path / "stack.calibration").glob("layers.*.json")))
    given = Counted(feeds(5, 64))
    assert calibrate(path, given, tmp_path, threads=1) == expected
    skipped = undisturbed.reads - given.reads
    assert skipped == before * 2 * 5 + (before > 0)  # both passes of each finished block, and the trial
    assert not list(tmp_path.rglob("*.partial"))


def test_without_the_hidden_states_of_the_last_block_it_starts_over(tmp_path: Path) -> None:
    path, given = _stack(tmp_path), Counted(feeds(5, 64))
    first = calibrate(path, given, tmp_path, threads=1)
    records = tmp_path / "stack.calibration"
    (records / f"layers.{LAYERS - 1}.json").unlink()  # as if killed before the last block's record
    (records / "confirmed.json").unlink()
    whole, given.reads = given.reads, 0
    assert calibrate(path, given, tmp_path, threads=1) == first  # layers.4's hidden states are gone by now
    assert given.reads == whole
    assert not list(tmp_path.rglob(".trial"))


def test_a_finished_calibration_is_read_not_made_again(tmp_path: Path) -> None:
    path, given = _stack(tmp_path), Counted(feeds(5, 64))
    first = calibrate(path, given, tmp_path, threads=1)
    given.reads = 0
    again = calibrate(path, given, tmp_path, threads=1)
    assert again == first
    for one, other in zip(first, again, strict=True):
        assert (one.smoothing is None) == (other.smoothing is None)
        if one.smoothing is not None and other.smoothing is not None:
            np.testing.assert_array_equal(one.smoothing, other.smoothing)
    assert given.reads == 5  # only to see that they are the same


def test_another_graph_feed_or_limit_starts_over(tmp_path: Path) -> None:
    path, given = _stack(tmp_path), feeds(5, 64)
    calibrate(path, given, tmp_path, threads=1)

    def reads(changed: Sequence[Feed], limits: Limits | None = None) -> int:
        counted = Counted(changed)
        choices = calibrate(path, counted, tmp_path, limits=limits, threads=1)
        _same(choices, _whole(path, changed, limits))
        return counted.reads

    assert reads(given) == 5
    assert reads(given, Limits(static_limit=0.2)) > 60
    louder: list[Feed] = [*given[:-1], {"x": given[-1]["x"] * 1.001}]
    assert reads(louder) > 60
    _stack(tmp_path, seed=9)
    assert reads(louder) > 60


def test_keeping_a_linear_float_does_not_start_over(tmp_path: Path) -> None:
    path, given = _stack(tmp_path), Counted(feeds(5, 64))
    first = calibrate(path, given, tmp_path, threads=1)
    given.reads = 0
    kept = calibrate(path, given, tmp_path, keep_float={"layers.3.down"}, threads=1)
    assert given.reads <= 5 + 4  # seen again, and the four that the worst linears are judged on
    assert {choice.name for choice in kept if choice.mode == "float"} == {"layers.3.down"}
    assert [choice.error_per_row for choice in kept] == [choice.error_per_row for choice in first]


def test_a_linear_that_ruins_the_output_stays_float(tmp_path: Path) -> None:
    """`layers.0.up` passes the local limit, as does every other; only its effect at the end gives it away."""
    quiet = np.random.default_rng(4).choice([-30.0, 30.0], 64).astype(np.float32)
    path = _stack(tmp_path, quiet=quiet)
    given: list[Feed] = [{"x": feed["x"] + quiet} for feed in feeds(6, 64)]
    choices = calibrate(path, given, tmp_path, limits=ALWAYS_INT8, threads=1)
    assert {choice.name for choice in choices if choice.mode == "float"} == {"layers.0.up"}
    confirmed = calibration_report(path, tmp_path)["confirmed"]
    assert confirmed["needed"] == ["layers.0.up"]
    by_name = {one["linear"]: one for one in confirmed["suspects"]}
    assert len(by_name) == 8 and confirmed["suspects"][0]["linear"] == "layers.0.up"
    planted = by_name["layers.0.up"]
    assert planted["error_float"] < 0.3 * planted["error_int8"]
    assert _error(path, given, choices) == pytest.approx(planted["error_float"], rel=0.3)
    assert _error(path, given, _whole(path, given, ALWAYS_INT8)) == pytest.approx(
        planted["error_int8"], rel=0.3
    )


def _error(path: Path, given: Sequence[Feed], choices: Sequence[LinearChoice]) -> float:
    model = int8_from_float(onnx.load(str(path)), choices)
    errors = RowErrors()
    with Session(path, threads=1) as exact, Session(model.SerializeToString(), threads=1) as int8:
        for feed in given:
            errors.add(feed, "y", int8.run(inputs_of(feed))["y"], exact.run(inputs_of(feed))["y"])
    return errors.means()["y"]


def test_wrong_wishes_are_errors(tmp_path: Path) -> None:
    path = _stack(tmp_path)
    with pytest.raises(CheckpointError, match=r"no linear layers\.3\.dwn.* did you mean layers\.3\.down"):
        calibrate(path, feeds(4, 64), tmp_path, keep_float={"layers.3.dwn"}, threads=1)
    with pytest.raises(EngineError, match="no calibration feed"):
        calibrate(path, [], tmp_path, threads=1)
    (tmp_path / "stack.calibration").mkdir()
    (tmp_path / "stack.calibration" / "letter.txt").write_text("mine")
    with pytest.raises(EngineError, match="is no calibration of ours"):
        calibrate(path, feeds(4, 64), tmp_path, threads=1)
    assert (tmp_path / "stack.calibration" / "letter.txt").read_text() == "mine"


def test_hidden_states_of_finished_blocks_go_away(tmp_path: Path) -> None:
    path = _stack(tmp_path)
    calibrate(path, feeds(4, 64), tmp_path, threads=1)
    kept = sorted(item.name for item in (tmp_path / "stack.calibration").iterdir())
    last = f"layers.{LAYERS - 1}"
    assert [name for name in kept if name.endswith((".float", ".int8"))] == [f"{last}.float", f"{last}.int8"]


_MEASURED = """
import sys
from pathlib import Path
import numpy as np
from orinspect.calibration.calibrate import calibrate
from orinspect.tests.linear_graphs import feeds

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024

before = peak()
path = Path(sys.argv[1])
calibrate(path, feeds(4, 1024, rows=16), path.parent, threads=1)
print(before, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from Linux's /proc")
def test_memory_is_that_of_one_block(tmp_path: Path) -> None:
    """Twelve blocks of 32 MB: a run that held all float weights would need more than 384 MB."""
    layers, inner = 12, 4096
    model = stacked_graph(layers, 1024, inner)
    onnx.save(model, str(tmp_path / "big.onnx"), save_as_external_data=True, location="big.onnx.data")
    del model
    weights = (tmp_path / "big.onnx.data").stat().st_size / 2**20
    assert weights == pytest.approx(384, rel=0.01)
    child = [sys.executable, "-c", _MEASURED, str(tmp_path / "big.onnx")]
    out = subprocess.run(child, check=True, capture_output=True, text=True, cwd=tmp_path.anchor)
    before, peak = map(int, out.stdout.split())
    assert peak - before < 0.5 * weights
    names = {
        linear.name
        for block in blocks_from_graph(tmp_path / "big.onnx")
        for linear in linears_of(block.model)
    }
    assert len(names) == 2 * layers

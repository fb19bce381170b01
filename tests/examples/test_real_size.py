"""The real-size bench: its checkpoints have the published sizes, and every stage runs on a slice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect.examples.real_size import make_checkpoint
from orinspect.examples.real_size.child import ChildError, measured
from orinspect.examples.real_size.make_checkpoint import SIZES, parameters, sliced, write_checkpoint
from orinspect.examples.real_size.measure import Options, main, measure
from orinspect.examples.real_size.stages import graphs_stage
from orinspect.examples.real_size.table import real_size_text
from orinspect.export.graph.checkpoint import weights_from_folder
from orinspect.export.graph.graphs import shape_from_checkpoint
from orinspect.export.prompt import tokenizer_from_checkpoint
from orinspect.tests.tiny_checkpoint import TinySizes, config_from_sizes, model_tensor_shapes, special_ids

pytestmark = pytest.mark.slow

# name -> (hidden, layers, heads, intermediate, tied, vision hidden, depth, taps, billions of parameters)
PUBLISHED = {
    "2b": (2048, 28, 16, 6144, True, 1024, 24, (5, 11, 17), 2.13),
    "4b": (2560, 36, 32, 9728, True, 1024, 24, (5, 11, 17), 4.44),
    "8b": (4096, 36, 32, 12288, False, 1152, 27, (8, 16, 24), 8.77),
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_the_configuration_is_read_back_as_the_published_model(name: str, tmp_path: Path) -> None:
    sizes = SIZES[name]
    document = config_from_sizes(sizes, special_ids(), "bfloat16", "4.57")
    (tmp_path / "config.json").write_text(json.dumps(document), encoding="utf-8")
    shape = shape_from_checkpoint(tmp_path, tile_px=448)
    hidden, layers, heads, intermediate, is_tied, vision_hidden, depth, taps, billions = PUBLISHED[name]
    assert (shape.hidden, shape.layers, shape.heads) == (hidden, layers, heads)
    assert shape.intermediate == intermediate
    assert (shape.vision_hidden, shape.vision_depth, shape.deepstack) == (vision_hidden, depth, taps)
    assert (shape.kv_heads, shape.head_dim, shape.vocab) == (8, 128, 151_936)
    assert shape.is_head_tied is is_tied and shape.mrope_section == (24, 20, 20)
    assert shape.rope_theta == 5e6 and shape.position_side == 48 and shape.tokens == 196
    assert parameters(sizes) / 1e9 == pytest.approx(billions, abs=0.01)


def test_a_slice_keeps_distinct_taps_within_its_depth() -> None:
    for layers, depth in ((1, 1), (2, 2), (3, 3), (3, 4), (4, 5), (28, 3), (2, 24)):
        cut = sliced(SIZES["2b"], layers=layers, vision_depth=depth)
        assert len(set(cut.deepstack)) == len(cut.deepstack) == min(3, layers, depth)
        assert all(0 <= tap < depth for tap in cut.deepstack)
    assert sliced(SIZES["2b"], layers=4).deepstack == SIZES["2b"].deepstack
    with pytest.raises(ValueError, match=r"layers must lie within 1\.\.28, got 29"):
        sliced(SIZES["2b"], layers=29)


def test_shards_hold_every_tensor_once_and_pieces_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sliced(SIZES["2b"], layers=1, vision_depth=1, vocab=1024)
    monkeypatch.setattr(make_checkpoint, "_PIECE", 1_000_003)  # a tensor is many pieces
    folder = write_checkpoint(tmp_path / "checkpoint", sizes, shard_bytes=80_000_000)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) >= 2
    weights, shapes = weights_from_folder(folder), model_tensor_shapes(sizes)
    assert weights.names() == sorted(shapes)
    name = "model.language_model.layers.0.mlp.down_proj.weight"
    values = weights.read(name, shapes[name])
    assert values.std() == pytest.approx((6144 * 2) ** -0.5, rel=0.01) and abs(values.mean()) < 1e-4
    assert len(np.unique(values[:2])) > 1000
    assert shape_from_checkpoint(folder).vocab == 1024
    assert tokenizer_from_checkpoint(folder).get_vocab_size() <= 1024


@pytest.mark.slow
def test_writing_graphs_takes_the_memory_of_one_tensor(tmp_path: Path) -> None:
    """Four decoder layers of the 2B take no more than two, and a fraction of the 805 MB that they hold."""
    peaks = []
    narrow = replace(SIZES["2b"], vision_hidden=128, vision_intermediate=256, vision_heads=2)
    for layers in (2, 4):
        sizes = sliced(narrow, layers=layers, vision_depth=3, vocab=1024)
        folder = write_checkpoint(tmp_path / "checkpoint", sizes)
        figures, spent = measured(graphs_stage, folder, tmp_path / "float", 128, 1000)
        if spent.peak_rss_mib is None:
            pytest.skip("this system has no /proc to read a process's memory from")
        peaks.append(spent.peak_rss_mib)
    assert figures["bytes"]["decoder"] > 800e6
    assert peaks[1] < 400 and peaks[1] < peaks[0] + 30
    for name in ("checkpoint", "float"):
        shutil.rmtree(tmp_path / name)  # pytest would keep a gigabyte


@pytest.mark.slow
def test_every_stage_runs_and_leaves_nothing(tmp_path: Path) -> None:
    options = Options("2b", TinySizes(), tile_px=64, rounds=1, threads=1, slice_layers=2)
    result = measure(options, tmp_path / "work", lambda line: None)
    stages = result["stages"]
    assert set(stages) == {"checkpoint", "graphs", "int8", "turns", "calibration", "answers"}
    for component, case in (("vision", "picture"), ("decoder", "prefill"), ("decoder", "decode")):
        row = stages["turns"][component]["cases"][case]
        assert row["cosine"]["int8"] > 0.99
        assert row["ratio"]["int8"]["median"] > 0 and row["ratio_cpu"]["int8"]["median"] > 0
        assert 0.05 < row["output_rms"]["float"] < 20  # neither dead nor exploded
    assert stages["int8"]["bytes"]["decoder"] < 0.6 * stages["graphs"]["bytes"]["decoder"]
    assert stages["calibration"]["extrapolated"]["pictures"] == 64
    assert stages["calibration"]["measured"]["decoder"]["blocks_once_s"] > 0
    assert list((tmp_path / "work").iterdir()) == []
    table = real_size_text(json.loads(json.dumps(result)))
    assert "prefill (36 tokens behind 64)" in table and "allowed" not in table  # a slice has no bounds


@pytest.mark.slow
def test_the_command_writes_figures_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures" / "slice.json"
    slice_of = ["--layers", "1", "--vision-depth", "1", "--vocab", "1024", "--tile", "64"]
    work = ["--stages", "graphs", "--work", str(tmp_path / "work"), "--json", str(file)]
    assert main([*slice_of, *work]) == 0
    captured = capsys.readouterr()
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["model"]["layers"] == 1 and set(result["stages"]) == {"checkpoint", "graphs"}
    assert captured.out.strip() == real_size_text(result)
    assert "float graphs: decoder" in captured.err
    with pytest.raises(SystemExit):
        main(["--stages", "graphs,nothing"])
    assert "'nothing' is none of graphs, int8" in capsys.readouterr().err


def test_bounds_that_are_broken_are_said() -> None:
    graphs: dict[str, Any] = {"wall_s": 1000.0, "cpu_s": None, "bytes": {"decoder": 10**9}}
    graphs |= {"peak_rss_mib": 7000.0, "peak_anonymous_mib": 5.0}
    machine: dict[str, Any] = {"cpu": "a CPU", "cores": 2, "memory_gib": 8, "onnxruntime": "1.31"}
    machine |= {"has_vnni": True, "load_average": 0.0}
    model = {"name": "2b", "is_whole": True, "parameters": 2, "layers": 28, "vision_depth": 24}
    text = real_size_text({"model": model, "machine": machine, "tile_px": 448, "stages": {"graphs": graphs}})
    assert "memory of writing the graphs: 6.84 GiB of 6 allowed: TOO MUCH" in text
    assert "time of writing the graphs: 16.67 min of 15 allowed: TOO MUCH" in text


def test_a_full_disk_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 3 * 10**9})())
    with pytest.raises(OSError, match=r"has 3\.0 GB free and 2b needs .* --layers"):
        measure(Options("2b", SIZES["2b"]), tmp_path / "work", lambda line: None)


def test_a_stage_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match=r"CheckpointError: config\.json is missing"):
        measured(graphs_stage, tmp_path, tmp_path / "out", 128, 10)

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from orinspect.calibration.linears import Weights
from orinspect.calibration.ranges import Magnitudes, Reservoir, ranges_from_runs
from orinspect.calibration.sessions import MaskedFeed
from orinspect.runtime.errors import CheckpointError, EngineError
from orinspect.tests.linear_graphs import attention_graph, feeds, linear_graph, saved


def _linear(tmp_path: Path, features: int = 8) -> Path:
    return saved(linear_graph(np.ones((features, 4), np.float32)), tmp_path)


def test_histogram_percentile_is_within_a_bin_of_the_true_one() -> None:
    values = np.random.default_rng(0).lognormal(0, 3, 200_000).astype(np.float32)  # 16 decades
    histogram = Magnitudes()
    for part in np.split(values, 20):
        histogram.add(part)
    for percent in (50.0, 99.0, 99.99):
        exact = float(np.percentile(values, percent))
        assert histogram.percentile(percent) == pytest.approx(exact, rel=0.02)
    assert histogram.largest == values.max()


def test_mse_clip_of_normal_values_cuts_a_lone_spike() -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    values[0] = 60.0
    histogram = Magnitudes()
    histogram.add(values)

    def error(clip: float) -> float:
        step = clip / 127
        return float(((np.clip(np.rint(values / step), -128, 127) * step - values) ** 2).sum())

    best = min(np.geomspace(1, 60, 200), key=error)
    assert error(histogram.mse_clip()) <= 1.1 * error(best)
    assert histogram.mse_clip() < 60


def test_zeros_only_have_no_clip() -> None:
    histogram = Magnitudes()
    histogram.add(np.zeros(10, np.float32))
    assert (histogram.percentile(99.99), histogram.mse_clip(), histogram.largest) == (0, 0, 0)


def test_reservoir_is_uniform_over_the_stream() -> None:
    counts = np.zeros(100)
    for seed in range(200):
        reservoir = Reservoir(10, seed)
        for part in np.split(np.arange(100, dtype=np.float32)[:, None], 10):
            reservoir.add(part)
        assert len(reservoir.rows) == 10
        counts[reservoir.rows[:, 0].astype(int)] += 1
    halves = counts[:50].sum() / counts.sum()
    assert halves == pytest.approx(0.5, abs=0.05)  # 2000 draws: 4 standard deviations


def test_ranges_see_every_linear_once_and_share_inputs(tmp_path: Path) -> None:
    path = saved(attention_graph(), tmp_path)
    statistics = ranges_from_runs(path, iter(feeds(3, 64)), threads=1)
    names = {tensor: [linear.name.split(".")[-1] for linear in s.linears] for tensor, s in statistics.items()}
    assert names == {
        "x": ["q_proj", "k_proj", "v_proj"],
        "mixed": ["o_proj"],
        "residual": ["up_proj"],
        "hidden": ["down_proj"],
    }
    assert all(s.rows == 2 * 2 * 32 for s in statistics.values())  # feed 1 of 0..2 is held
    assert statistics["hidden"].sample.shape == (64, 256)


def test_tensors_at_once_changes_nothing(tmp_path: Path) -> None:
    path = saved(attention_graph(), tmp_path)
    many = ranges_from_runs(path, feeds(2, 64), threads=1)
    single = ranges_from_runs(path, feeds(2, 64), threads=1, tensors_at_once=1)
    for tensor, statistics in many.items():
        assert single[tensor].clips() == statistics.clips()


def test_held_feeds_give_the_sample_and_never_the_range(tmp_path: Path) -> None:
    given = [{"x": np.full((1, 5, 8), value, np.float32)} for value in (1, 50, 2, 3, 4, 70)]
    statistics = ranges_from_runs(_linear(tmp_path), given, threads=1)["x"]
    assert statistics.abs_max == 4
    assert set(statistics.sample.ravel().tolist()) == {50.0, 70.0}


def test_masked_rows_count_nowhere(tmp_path: Path) -> None:
    values = np.ones((2, 4, 8), np.float32)
    counted = np.ones((2, 4), bool)
    values[0, :2], counted[0, :2] = 1e6, False
    statistics = ranges_from_runs(_linear(tmp_path), [MaskedFeed({"x": values}, counted)], threads=1)["x"]
    assert statistics.abs_max == 1
    assert statistics.rows == 6
    assert statistics.sample.max() == 1


def test_a_mask_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    feed = MaskedFeed({"x": np.ones((2, 4, 8), np.float32)}, np.ones((2, 3), bool))
    with pytest.raises(EngineError, match=r"x: the feed's mask has shape \(2, 3\) but the tensor has"):
        ranges_from_runs(_linear(tmp_path), [feed], threads=1)


def test_values_that_are_not_finite_name_the_linear(tmp_path: Path) -> None:
    values = np.ones((1, 4, 8), np.float32)
    values[0, 1, 3] = np.nan
    with pytest.raises(EngineError, match="fc: its input x holds NaN"):
        ranges_from_runs(_linear(tmp_path), [{"x": values}], threads=1)


def test_no_feed_and_wrong_feed_are_errors(tmp_path: Path) -> None:
    path = _linear(tmp_path)
    nothing: Iterator[dict[str, Any]] = iter(())
    with pytest.raises(EngineError, match=r"float\.onnx: no calibration feed"):
        ranges_from_runs(path, nothing, threads=1)
    attention = saved(attention_graph(), tmp_path, "attention.onnx")
    with pytest.raises(EngineError, match=r"missing \['x'\], unknown \['z'\]"):
        ranges_from_runs(attention, [{"z": np.ones((1, 1, 64), np.float32)}], threads=1)


def test_a_graph_without_linears_is_an_error(tmp_path: Path) -> None:
    model = linear_graph(np.ones((8, 4), np.float32))
    model.graph.node[0].name = "another"
    with pytest.raises(CheckpointError, match="no linear found"):
        ranges_from_runs(saved(model, tmp_path), feeds(1, 8), threads=1)


def test_weights_in_external_data_are_found(tmp_path: Path) -> None:
    model = attention_graph()
    path = tmp_path / "float.onnx"
    inside = ranges_from_runs(saved(model, tmp_path, "inside.onnx"), feeds(2, 64), threads=1)
    onnx.save(model, str(path), save_as_external_data=True, location="float.data", size_threshold=0)
    outside = ranges_from_runs(path, feeds(2, 64), threads=1)
    assert {k: s.clips() for k, s in outside.items()} == {k: s.clips() for k, s in inside.items()}


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    ranges_from_runs(_linear(tmp_path), feeds(2, 8), threads=1, progress=lambda *step: told.append(step))
    assert told == [("ranges", 1, 2), ("ranges", 2, 2)]


def test_channel_max_is_per_feature_and_never_from_held_or_masked_rows(tmp_path: Path) -> None:
    values = np.zeros((6, 1, 5, 8), np.float32)
    values[0, 0, 2, 3], values[2, 0, 1, 7] = -9, 4
    values[1, 0, 0, 0] = 50  # feed 1 is held
    values[2, 0, 0, 1] = 70  # masked
    counted = np.ones((1, 5), bool)
    counted[0, 0] = False
    given = [MaskedFeed({"x": one}, counted) for one in values]
    statistics = ranges_from_runs(_linear(tmp_path), given, threads=1)["x"]
    assert statistics.channel_max.tolist() == [0, 0, 0, 9, 0, 0, 0, 4]
    assert statistics.abs_max == statistics.channel_max.max()


def test_external_weights_are_mapped_one_by_one(tmp_path: Path) -> None:
    model = attention_graph()
    onnx.save(
        model, str(tmp_path / "external.onnx"), save_as_external_data=True, location="external.data",
        size_threshold=0,
    )  # fmt: skip
    light = onnx.load(str(tmp_path / "external.onnx"), load_external_data=False)
    inside, outside = Weights(attention_graph()), Weights(light, tmp_path)
    assert list(inside) == list(outside)
    for name, weight in outside.items():
        assert isinstance(weight, np.memmap)
        np.testing.assert_array_equal(weight, inside[name])
    with (tmp_path / "external.data").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(CheckpointError, match=r"external.data has 5000 bytes, layers.*weight ends at byte"):
        list(outside.values())
    (tmp_path / "external.data").unlink()
    with pytest.raises(CheckpointError, match=r"external.data is not there"):
        list(outside.values())

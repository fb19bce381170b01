"""Golden frames: a healthy engine passes, a damaged one is named, a close choice gates nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from orinspect.calibration.sessions import MaskedFeed
from orinspect.export import golden
from orinspect.export.bundle import write_manifest
from orinspect.runtime.errors import BundleError, EngineError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from orinspect.runtime.infer.golden_frames import check_golden, golden_frames, mismatches
from orinspect.runtime.infer.sequence import mask_for
from orinspect.tests.small_bundle import write_small_bundle

pytestmark = pytest.mark.slow

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small float bundle with golden frames of its vision, decoder and head."""
    bundle = write_small_bundle(tmp_path_factory.mktemp("golden"))
    shape, draw = bundle.shape, np.random.default_rng(3)

    def exact(component: str, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        with OnnxruntimeEngine(bundle.path / f"{component}.onnx", threads=1) as engine:
            return engine.run(feeds)

    patches = draw.uniform(-1, 1, (2, shape.patches, shape.patch_features)).astype(np.float32)
    entries = {"vision": golden.write_golden_frame(bundle.path, "vision", {"patches": patches}, exact)[0]}
    feed = decoder_feed(bundle, draw)
    entries["decoder"], runs = golden.write_golden_frame(bundle.path, "decoder", feed, exact)
    head = f"head_schema.{bundle.recipe_ids[0]}"
    allowed = np.array([0, 1, 2])
    choices = [(row, column, allowed) for row in range(2) for column in (6, 7)]
    entries[head] = golden.write_golden_choices(bundle.path, head, runs, choices, exact)
    write_manifest(bundle.path, {**bundle.manifest, "golden": entries})
    return Bundle.open(bundle.path)


def decoder_feed(bundle: Bundle, draw: np.random.Generator) -> MaskedFeed:
    """Two ragged rows of 8 and 5 tokens behind a past of 4."""
    shape, counts, columns = bundle.shape, [8, 5], 8
    counted = np.arange(columns) >= columns - np.array(counts)[:, None]
    angle = draw.uniform(0, 3, (2, columns, shape.head_dim)).astype(np.float32)
    inputs = {
        "embeds": draw.normal(size=(2, columns, shape.hidden)).astype(np.float32),
        "deepstack": np.zeros((2, len(shape.deepstack), columns, shape.hidden), np.float32),
        "cos": np.cos(angle),
        "sin": np.sin(angle),
        "past_kv": draw.normal(size=shape.past_kv_shape(2, 4)).astype(np.float32),
        "mask": mask_for([4, 4], counts, 4, columns),
    }
    return MaskedFeed(inputs, counted)


def test_the_bundles_own_engine_passes(bundle: Bundle) -> None:
    assert [frame.component for frame in golden_frames(bundle)] == list(bundle.manifest["golden"])
    assert not check_golden(bundle, engine_of(bundle))
    for entry in bundle.manifest["golden"].values():
        assert entry["runs"] >= 20
        assert all(0 < value < 1 for value in entry["tolerance"].values())


def test_a_frame_is_read_when_its_turn_comes(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "b")
    damaged = tmp_path / "b" / bundle.manifest["golden"]["decoder"]["file"]
    damaged.write_bytes(damaged.read_bytes()[:4].ljust(damaged.stat().st_size, b"\0"))
    copy, asked = Bundle.open(tmp_path / "b", verify=False), list[str]()

    def engine(component: str) -> OnnxruntimeEngine:
        asked.append(component)
        return OnnxruntimeEngine(copy.graph(component))

    with pytest.raises(BundleError, match="golden frame of decoder"):
        check_golden(copy, engine)
    assert asked == ["vision"]


def engine_of(bundle: Bundle, graphs: Mapping[str, Path] | None = None):  # type: ignore[no-untyped-def]
    """component -> engine, of other graphs where they are given."""
    return lambda component: OnnxruntimeEngine((graphs or {}).get(component) or bundle.graph(component))


@pytest.mark.parametrize("component", ["vision", "decoder"])
def test_an_engine_with_one_wrong_weight_is_named(bundle: Bundle, component: str, tmp_path: Path) -> None:
    model = onnx.load(str(bundle.graph(component)))
    name = {"vision": "blocks.0.attn.qkv.weight", "decoder": "layers.1.mlp.up_proj.weight"}[component]
    tensor = next(each for each in model.graph.initializer if each.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values[:, :4] *= 1.5
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, str(tmp_path / "wrong.onnx"))
    found = check_golden(bundle, engine_of(bundle, {component: tmp_path / "wrong.onnx"}))
    assert found and {one.component for one in found} == {component}
    assert str(found[0]).startswith(f"{component}: ")


def test_of_perturbed_runs_only_the_heads_input_is_kept(bundle: Bundle, tmp_path: Path) -> None:
    def exact(_: str, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        return {}

    shutil.copyfile(bundle.graph("decoder"), tmp_path / "decoder.onnx")
    feed = decoder_feed(bundle, np.random.default_rng(4))
    _, runs = golden.write_golden_frame(tmp_path, "decoder", feed, exact)
    assert len(runs) == golden.RUNS + 1 and {name for run in runs for name in run} == {"hidden"}


def test_a_frame_without_a_finite_tolerance_is_refused(bundle: Bundle) -> None:
    def exact(_: str, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        return {}

    patches = np.full((1, bundle.shape.patches, bundle.shape.patch_features), np.nan, np.float32)
    with pytest.raises(EngineError, match="golden frame of vision: image_tokens is not finite"):
        golden.write_golden_frame(bundle.path, "vision", {"patches": patches}, exact)


def test_padding_does_not_count_and_nan_does(bundle: Bundle) -> None:
    frame = next(frame for frame in golden_frames(bundle) if frame.component == "decoder")
    outputs = {name: values.copy() for name, values in frame.expected.items()}
    outputs["hidden"][1, :3] = 99  # the second row's padding
    outputs["new_kv"][1, :, :, :, :3] = 99
    assert not mismatches(frame, outputs)
    outputs["new_kv"][0, 0, 0, 0, 0, 0] = np.nan
    assert [one.error for one in mismatches(frame, outputs)] == [float("inf")]
    with pytest.raises(BundleError, match="hidden"):
        mismatches(frame, {"new_kv": outputs["new_kv"]})


def test_a_choice_too_close_to_call_gates_nothing(bundle: Bundle) -> None:
    head = f"head_schema.{bundle.recipe_ids[0]}"
    entry = bundle.manifest["golden"][head]
    assert entry["may_gate"] and 0 < entry["choices_kept"] <= entry["choices"] == 4
    hidden = np.random.default_rng(0).normal(size=(1, 1, bundle.shape.hidden)).astype(np.float32)
    runs = [{"hidden": hidden + noise} for noise in _noises(hidden.shape)]
    twins = [(0, 0, np.array([3, 3]))]  # the same logit twice: no margin at all

    def exact(_: str, feeds: Mapping[str, Floats]) -> dict[str, Floats]:
        return {"logits": feeds["hidden"]}

    assert not golden.write_golden_choices(bundle.path, head, runs, twins, exact)["may_gate"]


def _noises(shape: tuple[int, ...]) -> Iterator[Floats]:
    draw = np.random.default_rng(1)
    yield np.zeros(shape, np.float32)
    for _ in range(3):
        yield draw.normal(scale=0.1, size=shape).astype(np.float32)


def test_places_of_an_answers_choices(bundle: Bundle) -> None:
    guide = bundle.recipe().guide
    ids: list[int] = []
    state = guide.start
    while state != guide.terminal and len(ids) < 40:
        token = min(guide.states[state])
        ids.append(token)
        state = guide.states[state][token]
    found = golden.choices_of_answer(guide, ids, row=1, first_column=10)
    assert found and all(row == 1 for row, _, _ in found)
    state = guide.start
    for index, token in enumerate(ids):
        is_asked = any(column == 10 + index - 1 for _, column, _ in found)
        assert is_asked == guide.is_choice(state)
        state = guide.states[state][token]

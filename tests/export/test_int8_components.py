"""INT8 on the graphs that export really writes, at the sizes of the reference checkpoint, weights random."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from orinspect.calibration.calibrate import calibrate
from orinspect.calibration.choice import LinearChoice
from orinspect.calibration.closeness import output_errors
from orinspect.calibration.int8_graph import LinearBytes, flavour_from_int8, linear_bytes_of_file
from orinspect.calibration.linears import linears_of
from orinspect.calibration.sessions import Feed, MaskedFeed, Session, inputs_of, kernel_counts
from orinspect.export.graph.graphs import GraphFiles, graphs_from_checkpoint
from orinspect.export.int8 import int8_to_files
from orinspect.runtime.infer.sequence import mask_for, mrope_cos_sin
from orinspect.tests.tiny_checkpoint import REFERENCE_SIZES, write_tiny_checkpoint

pytestmark = pytest.mark.slow  # all of them together take several seconds

TILES, PADDING, TEXT = 4, 3, 12


@dataclass(frozen=True)
class Component:
    """A float graph, its INT8 graph, how its linears run and their bytes."""

    source: Path
    int8: Path
    feeds: list[Feed]
    choices: tuple[LinearChoice, ...]
    size: LinearBytes


def _decoder_feed(files: GraphFiles, seen: Mapping[str, npt.NDArray[Any]], seed: int) -> MaskedFeed:
    """Image tokens and random text; every second row is shorter and padded on the left with huge values."""
    random, shape = np.random.default_rng(seed), files.shape
    columns = shape.tokens + TEXT
    table = np.load(files.embeddings)
    embeds = table[random.integers(0, len(table), (TILES, columns))].astype(np.float32)
    embeds[:, PADDING : PADDING + shape.tokens] = seen["image_tokens"]
    deepstack = np.zeros((TILES, len(shape.deepstack), columns, shape.hidden), np.float32)
    deepstack[:, :, PADDING : PADDING + shape.tokens] = seen["deepstack"]
    counts = [columns - PADDING * (row % 2) for row in range(TILES)]
    counted = np.array([[column >= columns - count for column in range(columns)] for count in counts])
    embeds[~counted] = 1e4
    cos, sin = mrope_cos_sin(np.broadcast_to(np.arange(columns), (TILES, 3, columns)), shape)
    inputs = {
        "embeds": embeds,
        "deepstack": deepstack,
        "cos": cos,
        "sin": sin,
        "past_kv": np.zeros(shape.past_kv_shape(TILES, 1), np.float32),
        "mask": mask_for([0] * TILES, counts, 1, columns),
    }
    return MaskedFeed(inputs, counted)


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Component]:
    folder = tmp_path_factory.mktemp("int8")
    files = graphs_from_checkpoint(write_tiny_checkpoint(folder / "checkpoint", REFERENCE_SIZES), folder)
    assert files.attributes is not None
    random = np.random.default_rng(0)
    patches = random.uniform(-1, 1, (3, TILES, files.shape.patches, 1536)).astype(np.float32)
    vision: list[Feed] = [{"patches": batch} for batch in patches]
    with Session(files.vision, threads=1) as session:
        seen = [session.run(inputs_of(feed)) for feed in vision]
    attributes: list[Feed] = list(seen)
    decoder: list[Feed] = [_decoder_feed(files, one, seed) for seed, one in enumerate(seen)]
    sources = {"vision": files.vision, "attributes": files.attributes, "decoder": files.decoder}
    made, work, out = {}, folder / "work", folder / "int8"
    out.mkdir()
    for name, feeds in {"vision": vision, "attributes": attributes, "decoder": decoder}.items():
        choices = calibrate(sources[name], feeds, work, threads=1)
        written = int8_to_files(sources[name], choices, out, name)
        made[name] = Component(sources[name], written.onnxruntime, feeds, choices, written.linears)
    return made


NAMES = ("vision", "attributes", "decoder")


@pytest.mark.parametrize("name", NAMES)
def test_every_linear_is_an_integer_kernel(components: dict[str, Component], name: str) -> None:
    component = components[name]
    count = len(linears_of(onnx.load(str(component.source))))
    assert count == {"vision": 6 * 4 + 1 + 3 * 2, "attributes": 2, "decoder": 4 * 7}[name]
    assert [choice.mode for choice in component.choices].count("float") == 0
    kernels = kernel_counts(component.int8)
    assert kernels["MatMulIntegerToFloat"] == count
    assert "DequantizeLinear" not in kernels


@pytest.mark.parametrize("name", NAMES)
def test_linears_shrink_to_27_percent(components: dict[str, Component], name: str) -> None:
    component = components[name]
    assert component.size.ratio <= 0.27
    assert linear_bytes_of_file(component.int8) == component.size
    assert linear_bytes_of_file(component.source).ratio == 1


@pytest.mark.parametrize("name", NAMES)
def test_outputs_stay_close(components: dict[str, Component], name: str) -> None:
    component = components[name]
    errors = output_errors(component.source, component.int8, component.feeds, threads=1)
    for error in errors.values():
        assert error.cosine > 0.998  # random weights carry every rounding through all layers
    for choice in component.choices:
        assert choice.error_static is not None and choice.error_static < 0.05, choice


def test_decoder_shares_quantisation_and_padding_does_not_count(components: dict[str, Component]) -> None:
    component = components["decoder"]
    assert kernel_counts(component.int8)["QuantizeLinear"] == 4 * 4  # q k v | o | gate up | down
    clips = [choice.clip for choice in component.choices]
    assert all(clip is not None and clip < 100 for clip in clips)  # the padding's embeds are 1e4


def test_the_s8_flavour_says_the_same(components: dict[str, Component], tmp_path: Path) -> None:
    component = components["vision"]
    s8 = flavour_from_int8(onnx.load(str(component.int8)), "s8")
    onnx.checker.check_model(s8, full_check=True)
    onnx.save(s8, str(tmp_path / "s8.onnx"))
    inputs = inputs_of(component.feeds[0])
    with Session(component.int8, threads=1) as u8, Session(tmp_path / "s8.onnx", threads=1) as other:
        left, right = u8.run(inputs)["image_tokens"], other.run(inputs)["image_tokens"]
    assert np.corrcoef(left.ravel(), right.ravel())[0, 1] > 0.9995

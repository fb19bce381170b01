"""The builder and the runtime use only what NVIDIA's modules of 10.3, 10.16 and 11.4 really have."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from orinspect.tests.export.tensorrt.binding_names import uses_of
from orinspect.tests.export.tensorrt.bindings import WHEELS, Described, NotHere, described, described_module

ROOT = Path(__file__).parents[3]
CACHE = Path(sys.prefix) / "tensorrt-bindings"
FILES = sorted(
    path
    for room in ("runtime", "jetson")
    for path in (ROOT / room).rglob("*.py")
    if "trt." in path.read_text(encoding="utf-8")
)

RTX_ONLY = {
    "ComputeCapability",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
}
"""Names behind `compute_capability`, which only a build for a GPU that is not there gives."""


def _module(version: str) -> Described:
    try:
        return described(version, CACHE)
    except NotHere as reason:
        pytest.skip(str(reason))


@pytest.mark.slow
@pytest.mark.parametrize("version", WHEELS)
def test_every_name_exists_in_the_real_module(version: str) -> None:
    module = _module(version)
    assert module.version == version
    uses = uses_of(FILES, module)
    wrong = {each for each in uses.missing if each.partition(" (")[0] not in RTX_ONLY}
    assert not wrong, "\n".join(sorted(wrong))
    assert uses.used >= {
        "Builder", "Builder.create_network", "Builder.build_serialized_network", "DataType.HALF",
        "EngineInspector.get_engine_information", "IBuilderConfig.progress_monitor", "ILogger.Severity.ERROR",
        "ICudaEngine.get_tensor_mode", "IExecutionContext.execute_async_v3", "ParserError.desc",
        "IExecutionContext.set_tensor_address", "IOptimizationProfile.set_shape", "ITensor.name",
        "OnnxParser.parse_from_file", "Runtime.deserialize_cuda_engine", "TensorIOMode.INPUT",
    }  # fmt: skip


@pytest.mark.slow
def test_a_name_that_one_version_lacks_is_found(tmp_path: Path) -> None:
    """Removed in 11, new in 10.16, misspelt, a keyword that is none: with file and line."""
    (tmp_path / "wrong.py").write_text(
        "def build(trt, path):\n"
        "    builder = trt.Builder(None)\n"
        "    config = builder.create_builder_config()\n"
        "    config.set_flag(trt.BuilderFlag.INT8)\n"
        "    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, bytes=1)\n"
        "    return use(config, trt.IStreamReaderV2)\n"
        "\n"
        "def use(config, reader):\n"
        "    config.progres_monitor = reader\n",
        encoding="utf-8",
    )
    always = {
        "IBuilderConfig.set_memory_pool_limit(bytes=) (wrong.py:5)",
        "IBuilderConfig.progres_monitor (wrong.py:9)",
    }
    expected = {
        "10.3.0": always | {"IStreamReaderV2 (wrong.py:6)"},
        "10.16.1.11": always,
        "11.4.0.106": always | {"BuilderFlag.INT8 (wrong.py:4)"},
    }
    for version, missing in expected.items():
        assert uses_of([tmp_path / "wrong.py"], _module(version)).missing == missing, version


@pytest.mark.trt
def test_tensorrt_rtx_has_them_all_and_alone_the_compute_capabilities() -> None:
    assert importlib.util.find_spec("tensorrt_rtx") is not None, "run make trt-check"
    uses = uses_of(FILES, described_module("tensorrt_rtx"))
    assert not uses.missing and uses.used >= RTX_ONLY

"""NVIDIA's own Python modules without TensorRT: wheels of the bindings, imported over stub libraries.

A wheel of the bindings is 1 MB and links to three libraries of several GB, of which it takes nine functions.
A stub that defines these nine lets the module be imported; none of them is ever called. What is written down
of a module: its classes, their members, and of each docstring the lines in which pybind11 puts the
signatures.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WHEELS = {
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",  # JetPack 6.2
    "10.16.1.11": "tensorrt-cu13-bindings==10.16.1.11",  # JetPack 7.2
    "11.4.0.106": "tensorrt-cu13-bindings==11.4.0.106",
}
MODULE = "tensorrt_bindings"

_LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
_FUNCTIONS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
)  # fmt: skip

_DESCRIBE = """
import importlib, inspect, json, sys
module = importlib.import_module(sys.argv[1])
classes, waiting = {}, [(name, value) for name, value in vars(module).items() if inspect.isclass(value)]
while waiting:
    path, kind = waiting.pop()
    members = {}
    for name in dir(kind):
        value = inspect.getattr_static(kind, name)
        lines = (getattr(value, "__doc__", None) or "").splitlines()
        members[name] = " ".join(line.strip() for line in lines if "->" in line)
        if inspect.isclass(value) and not name.startswith("_"):
            waiting.append((f"{path}.{name}", value))
    classes[path] = members
json.dump({"version": module.__version__, "names": sorted(vars(module)), "classes": classes}, sys.stdout)
"""


class NotHere(Exception):
    """The module cannot be had on this machine; the message says why."""


@dataclass(frozen=True)
class Described:
    """A module as data: its names, and class (`Outer.Inner` for one inside) -> member -> signature."""

    version: str
    names: frozenset[str]
    classes: dict[str, dict[str, str]]


def described(version: str, cache: Path) -> Described:
    """The bindings of one TensorRT version, installed below `cache` once; NotHere says why it cannot be."""
    folder = cache / f"{version}-{sys.implementation.cache_tag}"
    if not (folder / MODULE).is_dir():
        _install(WHEELS[version], folder)
    stubs = _stubs(cache, version.split(".")[0])
    environment = os.environ | {"LD_LIBRARY_PATH": str(stubs), "PYTHONPATH": str(folder)}
    return described_module(MODULE, environment)


def described_module(module: str, environment: dict[str, str] | None = None) -> Described:
    """An importable module, described by a child process."""
    command = [sys.executable, "-W", "ignore", "-c", _DESCRIBE, module]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} cannot be imported:\n{done.stderr}")
    found = json.loads(done.stdout)
    return Described(found["version"], frozenset(found["names"]), found["classes"])


def _install(wheel: str, folder: Path) -> None:
    beside = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--target", str(beside), wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise NotHere(f"{wheel} cannot be installed: {reason}")
    beside.rename(folder)


def _stubs(cache: Path, major: str) -> Path:
    """A folder with the three libraries of one major version, as far as an import needs them."""
    folder = cache / f"stubs-{major}"
    missing = [name for name in _LIBRARIES if not (folder / f"lib{name}.so.{major}").is_file()]
    if not missing:
        return folder
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NotHere("no C compiler (cc) for the stub libraries")
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "stub.c"
    source.write_text(
        "".join(f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS), encoding="utf-8"
    )
    for name in missing:
        target = f"lib{name}.so.{major}"
        command = [
            compiler,
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{target}",
            "-o",
            str(folder / target),
            str(source),
        ]
        subprocess.run(command, check=True, capture_output=True)
    return folder

"""Compiles tests/host_cuda.c and puts it where the CUDA bindings look for the driver, in this process."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("host_cuda.c")
SONAME = "libcuda.so.1"


@functools.cache
def host_cuda() -> ctypes.CDLL:
    """The loaded library; skips the test where it cannot be had.

    Once a library with this soname is loaded, every later search for it finds this one.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the host's stand-in for the CUDA driver cannot be built")
    if Path("/dev/nvidiactl").exists() or Path("/dev/nvhost-gpu").exists():
        pytest.skip("this machine has a GPU: its own driver would be found first")
    folder = Path(tempfile.mkdtemp(prefix="orinspect-cuda-"))
    flags = ["-shared", "-fPIC", f"-Wl,-soname,{SONAME}"]
    subprocess.run([compiler, *flags, "-o", str(folder / SONAME), str(SOURCE), "-ldl"], check=True)
    try:
        return ctypes.CDLL(str(folder / SONAME), mode=ctypes.RTLD_GLOBAL)
    finally:
        shutil.rmtree(folder)  # it is mapped and needs no name any more

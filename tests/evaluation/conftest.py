"""A small untrained bundle, written once for all tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from orinspect.tests.small_bundle import write_small_bundle


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("evaluation")).path

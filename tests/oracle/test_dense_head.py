"""attributes.onnx against the dense head that examples/reference trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from orinspect.examples.reference.training.network import DenseHead
from orinspect.export.graph.checkpoint import weights_from_file
from orinspect.tests.float_pipeline import session_from_file
from orinspect.tests.parity_cases import CASES

pytestmark = pytest.mark.oracle


def test_dense_head_agrees_with_the_trained_module(tmp_path: Path) -> None:
    checkpoint, files = CASES["grouped"].written(tmp_path)
    shape = files.shape
    weights = weights_from_file(checkpoint / "dense_head.safetensors")
    head = DenseHead((1 + len(shape.deepstack)) * shape.hidden, weights.shape("fc1.weight")[0], 6).eval()
    head.load_state_dict(
        {name: torch.from_numpy(weights.read(name, weights.shape(name))) for name in weights.names()}
    )
    draw = np.random.default_rng(3)
    tokens = draw.standard_normal((2, shape.tokens, shape.hidden)).astype(np.float32)
    deepstack = draw.standard_normal((2, len(shape.deepstack), shape.tokens, shape.hidden)).astype(np.float32)
    features = [tokens, *deepstack.transpose(1, 0, 2, 3)]
    with torch.no_grad():
        expected = head(torch.from_numpy(np.concatenate(features, axis=-1))).numpy()
    assert files.attributes is not None
    session = session_from_file(files.attributes)
    presence, kind, box = session.run(
        ["presence", "type", "box"], {"image_tokens": tokens, "deepstack": deepstack}
    )
    found = np.concatenate([presence[..., None], kind, box], axis=-1)
    assert expected.std() > 0.3
    assert np.abs(found - expected).max() <= 1e-5

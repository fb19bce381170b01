"""The shipped checkpoints, trained weights and all, against transformers on real tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from orinspect.export.graph.graphs import graphs_from_checkpoint
from orinspect.export.prompt import prompt_ids
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.infer.pictures.tiles import compare_patches
from orinspect.runtime.recipe import load_recipe
from orinspect.tests.float_pipeline import FloatPipeline
from orinspect.tests.oracle.transformers_model import TransformersModel

pytestmark = pytest.mark.oracle

REFERENCE = Path(__file__).parents[2] / "examples" / "reference"
CHECKPOINTS = sorted(path.parent for path in REFERENCE.glob("*/config.json"))


@pytest.mark.skipif(not CHECKPOINTS, reason="no trained checkpoint is committed yet")
@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.name)
def test_trained_weights_agree(checkpoint: Path, tmp_path: Path) -> None:
    files = graphs_from_checkpoint(checkpoint, tmp_path)
    ours, theirs = FloatPipeline(files), TransformersModel(checkpoint, files.shape.grid_hw)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    prefix, suffix = prompt_ids(tokenizer, load_recipe(REFERENCE / "pcb-compare.toml"))
    ids = [*prefix, *[files.shape.image_token_id] * files.shape.tokens, *suffix]
    scene = pcb_scene(5, defects=8, misregistration_px=0)
    for defect in scene.defects[:3]:
        left, top = (min(max(defect.bbox_xyxy[axis] - 50, 0), 640 - 128) for axis in (0, 1))
        tiles = [each[None, top : top + 128, left : left + 128] for each in (scene.template, scene.image)]
        patches = compare_patches(tiles[0], tiles[1], difference_channel=True)[0]
        for found, expected in zip(ours.see(patches[None]), theirs.see(patches[None]), strict=True):
            assert np.abs(found - expected).max() <= 1e-5 * max(10, np.abs(expected).max())
        expected = theirs.all_logits(ids, [patches])
        prompt = ours.prompt(ids, [patches])
        assert np.abs(ours.all_logits(prompt) - expected).max() <= 1e-4
        assert ours.greedy([prompt], 64) == [theirs.greedy(ids, [patches], 64)]

"""Our graphs and host half against transformers, live, on random weights of several shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from orinspect.export.graph.graphs import GraphFiles
from orinspect.runtime.infer.pictures.tiles import compare_patches, image_patches
from orinspect.runtime.infer.sequence import mrope_cos_sin
from orinspect.tests.float_pipeline import FloatPipeline
from orinspect.tests.oracle.transformers_model import TransformersModel
from orinspect.tests.parity_cases import CASES, drawn_ids, drawn_pictures

pytestmark = pytest.mark.oracle

VISION_LIMIT = 1e-4
LOGIT_LIMIT = 1e-4
STEPS = 64


@dataclass
class Pair:
    """The same checkpoint on both sides."""

    ours: FloatPipeline
    theirs: TransformersModel
    files: GraphFiles


@pytest.fixture(scope="module", params=list(CASES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    case = CASES[request.param]
    folder, files = case.written(tmp_path_factory.mktemp(request.param))
    return Pair(FloatPipeline(files), TransformersModel(folder, case.grid_hw), files)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    case = CASES["reference"]
    folder, files = case.written(tmp_path_factory.mktemp("reference"))
    return Pair(FloatPipeline(files), TransformersModel(folder, case.grid_hw), files)


PROMPTS = {"text": (23,), "one image": (7, 9), "two images": (6, 4, 8), "image first": (0, 5)}


@pytest.mark.parametrize("texts", PROMPTS.values(), ids=PROMPTS.keys())
def test_logits_agree(pair: Pair, texts: tuple[int, ...]) -> None:
    pictures = drawn_pictures(pair.ours.shape, len(texts) - 1, seed=len(texts))
    ids = drawn_ids(pair.ours.shape, texts, seed=3)
    expected = pair.theirs.all_logits(ids, pictures)
    found = pair.ours.all_logits(pair.ours.prompt(ids, pictures))
    assert expected.std() > 1, "degenerate logits would agree whatever the graph does"
    assert np.abs(found - expected).max() <= LOGIT_LIMIT


def test_image_tokens_and_deepstack_agree(pair: Pair) -> None:
    pictures = np.stack(drawn_pictures(pair.ours.shape, 3, seed=1))
    for found, expected in zip(pair.ours.see(pictures), pair.theirs.see(pictures), strict=True):
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= VISION_LIMIT


@pytest.mark.parametrize("texts", list(PROMPTS.values())[:3], ids=list(PROMPTS)[:3])
def test_greedy_tokens_are_identical(pair: Pair, texts: tuple[int, ...]) -> None:
    pictures = drawn_pictures(pair.ours.shape, len(texts) - 1, seed=5)
    ids = drawn_ids(pair.ours.shape, texts, seed=11)
    expected = pair.theirs.greedy(ids, pictures, STEPS)
    assert pair.ours.greedy([pair.ours.prompt(ids, pictures)], STEPS) == [expected]
    assert len(set(expected)) > 4, "a constant answer proves nothing"


@pytest.mark.parametrize("size", [1, 5, 29])
def test_chunked_continuation_agrees(pair: Pair, size: int) -> None:
    """Chunks end inside an image, at its edges and inside text; 29 cuts the prompt in two."""
    pictures = drawn_pictures(pair.ours.shape, 2, seed=2)
    ids = drawn_ids(pair.ours.shape, (6, 4, 8), seed=13)
    chunks = [size] * (len(ids) // size)
    chunks += [len(ids) - sum(chunks)] if sum(chunks) < len(ids) else []
    found = pair.ours.all_logits(pair.ours.prompt(ids, pictures), chunks)
    assert np.abs(found - pair.theirs.all_logits(ids, pictures)).max() <= LOGIT_LIMIT


def test_ragged_rows_answer_as_alone_and_as_transformers(pair: Pair) -> None:
    shape = pair.ours.shape
    rows = [((7, 9), 1), ((30,), 0), ((3, 2, 5), 2)]
    asked = [
        (drawn_ids(shape, texts, seed=17 + count), drawn_pictures(shape, count, seed=19 + count))
        for texts, count in rows
    ]
    prompts = [pair.ours.prompt(ids, pictures) for ids, pictures in asked]
    together = pair.ours.greedy(prompts, STEPS)
    assert together == [pair.ours.greedy([prompt], STEPS)[0] for prompt in prompts]
    assert together == [pair.theirs.greedy(ids, pictures, STEPS) for ids, pictures in asked]


def test_stale_slots_change_nothing(pair: Pair) -> None:
    pictures = drawn_pictures(pair.ours.shape, 1, seed=23)
    prompt = pair.ours.prompt(drawn_ids(pair.ours.shape, (7, 9), seed=23), pictures)
    clean = pair.ours.greedy([prompt], STEPS, slots=160)
    assert pair.ours.greedy([prompt], STEPS, slots=160, stale=1e4) == clean
    assert pair.ours.greedy([prompt], STEPS, slots=160, stale=-1e4) == clean


def test_a_template_pair_is_one_video_patch(reference: Pair) -> None:
    """Two different frames in a temporal patch: the same as a two-frame video, and sees their order."""
    ours, theirs = reference.ours, reference.theirs
    draw = np.random.default_rng(29)
    template, part = draw.integers(0, 256, (2, 1, 128, 128), dtype=np.uint8)
    patches = compare_patches(template, part, difference_channel=True)[0]
    ids = drawn_ids(ours.shape, (5, 6), seed=29)
    found = ours.all_logits(ours.prompt(ids, [patches]))
    video = theirs.model.config.video_token_id
    video_ids = [video if token == ours.shape.image_token_id else token for token in ids]
    tokens = torch.tensor([video_ids])
    theirs.model.model.rope_deltas = None
    with torch.no_grad():
        expected = (
            theirs.model(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                mm_token_type_ids=2 * (tokens == video).int(),
                pixel_values_videos=torch.from_numpy(patches),
                video_grid_thw=torch.tensor([[1, 8, 8]]),
            )
            .logits[0]
            .numpy()
        )
    assert np.abs(found - expected).max() <= LOGIT_LIMIT
    swapped = compare_patches(part, template, difference_channel=True)[0]
    assert np.abs(ours.all_logits(ours.prompt(ids, [swapped])) - expected).max() > 0.1


def test_patches_are_what_the_convolution_sees(reference: Pair) -> None:
    """The patch rows and the flattened kernel against Conv3d over whole frames, in merge-block order."""
    draw = np.random.default_rng(31)
    image = draw.integers(0, 256, (1, 128, 128, 3), dtype=np.uint8)
    frames = torch.from_numpy(image / np.float32(127.5) - 1).float().permute(0, 3, 1, 2)
    convolution = reference.theirs.model.model.visual.patch_embed.proj
    with torch.no_grad():
        whole = convolution(torch.stack([frames, frames], dim=2))[0, :, 0]  # [width, 8, 8]
        by_patch = reference.theirs.model.model.visual.patch_embed(torch.from_numpy(image_patches(image)[0]))
    blocks = whole.reshape(-1, 4, 2, 4, 2).permute(1, 3, 2, 4, 0).reshape(64, -1)
    assert torch.allclose(blocks, by_patch, atol=1e-4)


def test_cos_and_sin_agree(pair: Pair) -> None:
    draw = np.random.default_rng(37)
    positions = draw.integers(0, 4000, (2, 3, 50))
    rotary = pair.theirs.model.model.language_model.rotary_emb
    expected = rotary(torch.zeros(1), torch.from_numpy(positions).transpose(0, 1))
    for found, theirs in zip(mrope_cos_sin(positions, pair.ours.shape), expected, strict=True):
        assert found.dtype == np.float32
        assert np.abs(found - theirs.numpy()).max() <= 5e-4  # one rounding step of a frequency times 4000


def test_positions_agree(pair: Pair) -> None:
    shape = pair.ours.shape
    pictures = drawn_pictures(shape, 2, seed=41)
    ids = drawn_ids(shape, (6, 0, 8), seed=41)
    inputs = pair.theirs.inputs(ids, pictures)
    expected, delta = pair.theirs.model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"]
    )
    prompt = pair.ours.prompt(ids, pictures)
    assert np.array_equal(prompt.positions, expected[:, 0].numpy())
    assert prompt.next_position == len(ids) + int(delta)


def test_the_pair_fixture_is_the_checkpoint_on_disk(pair: Pair) -> None:
    """A tied head is tied on their side too, and the theta of either configuration dialect arrived."""
    model = pair.theirs.model
    tied = model.lm_head.weight.data_ptr() == model.model.language_model.embed_tokens.weight.data_ptr()
    assert tied == pair.ours.shape.is_head_tied
    assert model.config.text_config.rope_parameters["rope_theta"] == pair.ours.shape.rope_theta
    assert Path(pair.files.vision).exists()

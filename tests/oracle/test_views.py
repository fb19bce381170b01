"""What the recipes show, from pixels to logits, against transformers: its prompt of a video and its model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

from orinspect.export.prompt import between_ids, encode, prompt_ids, tokenizer_from_checkpoint
from orinspect.export.recipe_compile import OPENING, compiled_from_recipe, with_prefix
from orinspect.runtime.infer.decode import Decoder
from orinspect.runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from orinspect.runtime.infer.guide import Guide
from orinspect.runtime.infer.pictures.views import patches_from_view, view_from_frames, view_from_pair
from orinspect.runtime.recipe import Clip, Recipe, Registration, Tiling
from orinspect.tests.float_pipeline import FloatPipeline
from orinspect.tests.oracle.transformers_model import TransformersModel
from orinspect.tests.parity_cases import CASES
from orinspect.tests.small_bundle import small_recipe

pytestmark = pytest.mark.oracle

Pictures = list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]
ONE_TILE = Tiling(tile_px=128, stride_px=128, levels=(1.0,))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FloatPipeline, TransformersModel]:
    folder, files = dataclasses.replace(CASES["grouped"], grid_hw=(8, 8)).written(
        tmp_path_factory.mktemp("views")
    )
    return folder, FloatPipeline(files), TransformersModel(folder, (8, 8))


def clip_recipe(frames: int, fps: float) -> Recipe:
    return small_recipe(mode="clip", compare=None, clip=Clip(frames, fps), tiling=ONE_TILE)


def drawn(count: int, seed: int) -> Pictures:
    """Smooth colour pictures that differ, [128, 128, 3] BGR."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return [np.kron(picture, np.ones((16, 16, 1), np.uint8)) for picture in coarse]


def their_ids(recipe: Recipe, folder: Path, theirs: TransformersModel, tokens: int) -> tuple[Any, list[int]]:
    """Our prompt with their placeholder tokens; also the kind of token that stands for a picture."""
    tokenizer = tokenizer_from_checkpoint(folder)
    prefix, suffix = prompt_ids(tokenizer, recipe)
    config = theirs.model.config
    token = config.video_token_id if recipe.mode == "clip" else config.image_token_id
    ids = list(prefix)
    for between in (*between_ids(tokenizer, recipe), suffix):
        ids += [*[token] * tokens, *between]
    return token, ids


def their_logits(theirs: TransformersModel, token: int, ids: Sequence[int], patches: Any) -> Any:
    """Logits [K, V] of the prompt with `patches` [pictures, N, F] at its picture tokens."""
    inputs = torch.tensor([list(ids)])
    is_video = token == theirs.model.config.video_token_id
    grids = [[len(patches), 8, 8]] if is_video else [[1, 8, 8]] * len(patches)
    flat = torch.from_numpy(np.ascontiguousarray(patches)).reshape(-1, patches.shape[-1])
    kind = (2 if is_video else 1) * (inputs == token).int()
    named = ("pixel_values_videos", "video_grid_thw") if is_video else ("pixel_values", "image_grid_thw")
    theirs.model.model.rope_deltas = None
    with torch.no_grad():
        result = theirs.model(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            mm_token_type_ids=kind,
            **dict(zip(named, (flat, torch.tensor(grids)), strict=True)),
        )
    return result.logits[0].numpy()


def their_video_text(frames: int, fps: float, tokens_hw: tuple[int, int]) -> str:
    """What their processor writes in place of a video, from its own code.

    Its constructor and its video processor need torchvision; this method needs four attributes.
    """
    processor = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        video_token="<|video_pad|>",
    )
    processor._calculate_timestamps = MethodType(Qwen3VLProcessor._calculate_timestamps, processor)
    metadata = VideoMetadata(total_num_frames=frames, fps=fps, frames_indices=list(range(frames)))
    grid = torch.tensor([[-(-frames // 2), 2 * tokens_hw[0], 2 * tokens_hw[1]]])
    made = {"video_grid_thw": grid, "video_metadata": [metadata]}
    return str(Qwen3VLProcessor.replace_video_token(processor, made, 0))


@pytest.mark.parametrize(("frames", "fps"), [(4, 2.0), (5, 1.6), (2, 30.0), (6, 0.5)])
def test_a_clip_is_their_video(
    pair: tuple[Path, FloatPipeline, TransformersModel], frames: int, fps: float
) -> None:
    """Text and times between, frame pairs, an odd last frame, patches, logits."""
    folder, ours, theirs = pair
    recipe, pictures = clip_recipe(frames, fps), drawn(frames, seed=frames)
    token, ids = their_ids(recipe, folder, theirs, ours.shape.tokens)
    video = their_video_text(frames, fps, ours.shape.token_grid_hw)
    text = f"<|im_start|>user\n{recipe.prompt}{video}<|im_end|>\n<|im_start|>assistant\n"
    assert encode(tokenizer_from_checkpoint(folder), text) == ids
    patches = patches_from_view(view_from_frames(recipe, pictures).pixels, 16, 2)[0]
    patches = patches.reshape(recipe.pictures, 64, -1)
    assert torch.allclose(*convolved(theirs, pictures, patches), atol=1e-4)
    expected = their_logits(theirs, token, ids, patches)
    image = ours.shape.image_token_id
    prompt = ours.prompt([image if each == token else each for each in ids], list(patches))
    assert np.abs(ours.all_logits(prompt) - expected).max() <= 1e-3 * np.abs(expected).max()


def convolved(theirs: TransformersModel, pictures: Pictures, patches: Any) -> tuple[Any, Any]:
    """Their Conv3d over the whole video, and over our patches; both [pictures * N, width]."""
    video = np.stack([*pictures, *pictures[-1:] * (len(pictures) % 2)])[..., ::-1]  # [F, H, W, RGB]
    frames = torch.from_numpy(video / np.float32(127.5) - 1).float().permute(3, 0, 1, 2)[None]
    embed = theirs.model.model.visual.patch_embed
    with torch.no_grad():
        whole = embed.proj(frames)[0]  # [width, F / 2, 8, 8]
        by_patch = embed(torch.from_numpy(patches.reshape(-1, patches.shape[-1])))
    width, count = whole.shape[:2]
    blocks = whole.reshape(width, count, 4, 2, 4, 2).permute(1, 2, 4, 3, 5, 0).reshape(-1, width)
    return blocks, by_patch


def decoder_answer(folder: Path, ours: FloatPipeline, recipe: Recipe, patches: Any, work: Path) -> Any:
    """The device's own decoder with the recipe's stored prefix, on graphs that `work` holds."""
    compiled = compiled_from_recipe(tokenizer_from_checkpoint(folder), recipe)
    first, *states = compiled.guide.states
    opening = encode(tokenizer_from_checkpoint(folder), OPENING)[0]
    # random weights like the empty answer best; without it there is something to choose
    guide = Guide([{opening: first[opening]}, *states], compiled.guide.terminal)
    compiled = dataclasses.replace(compiled, guide=guide, kept_ids=guide.kept_ids)
    tokens, deepstack = ours.see(patches)
    features = deepstack.transpose(1, 0, 2, 3).reshape(1, deepstack.shape[1], -1, ours.shape.hidden)
    with (
        OnnxruntimeEngine(work / "decoder.onnx", threads=1) as decoder,
        OnnxruntimeEngine(work / "head_schema.onnx", threads=1) as head,
    ):
        compiled = with_prefix(compiled, ours.shape, decoder, ours.embeddings)
        kept = _KeptRows(head, compiled.kept_ids)
        guided = Decoder(ours.shape, compiled, ours.embeddings, decoder, kept, clock=lambda: 0.0)  # type: ignore[arg-type]
        return compiled, guided.answers(tokens.reshape(1, -1, ours.shape.hidden), features).answers[0]


class _KeptRows:
    """The whole word head, of which the guide's rows are taken."""

    def __init__(self, head: OnnxruntimeEngine, kept: Any) -> None:
        self._head, self._kept = head, kept

    def run(self, feeds: Any) -> dict[str, Any]:
        return {"logits": self._head.run(feeds)["logits"][:, self._kept]}


def their_guided(
    theirs: TransformersModel, compiled: Any, token: int, ids: list[int], patches: Any
) -> list[int]:
    """Greedy under the same guide, the whole sequence again for every token."""
    state, answer = compiled.guide.start, list[int]()
    while state != compiled.guide.terminal:
        allowed = list(compiled.guide.states[state])
        logits = their_logits(theirs, token, [*ids, *answer], patches)[-1]
        answer.append(max(allowed, key=lambda each: logits[each]))
        state = compiled.guide.states[state][answer[-1]]
    return answer


@pytest.mark.parametrize("mode", ["single", "two_images", "temporal", "clip"])
def test_guided_answers_are_theirs_token_for_token(
    pair: tuple[Path, FloatPipeline, TransformersModel], mode: str
) -> None:
    folder, ours, theirs = pair
    pictures = drawn(5, seed=77)
    if mode in ("single", "clip"):
        recipe = small_recipe(
            mode=mode, compare=None, tiling=ONE_TILE, max_defects_per_tile=2, clip=Clip(5, 2.0)
        )
        view = view_from_frames(recipe, pictures if mode == "clip" else pictures[:1])
    else:
        recipe = small_recipe(compare=mode, tiling=ONE_TILE, max_defects_per_tile=2)
        view = view_from_pair(recipe, *pictures[:2])
    patches = patches_from_view(view.pixels, 16, 2)[0].reshape(recipe.pictures, 64, -1)
    compiled, found = decoder_answer(folder, ours, recipe, patches, folder.parent / "graphs")
    token, ids = their_ids(recipe, folder, theirs, ours.shape.tokens)
    assert list(found.ids) == their_guided(theirs, compiled, token, ids, patches)
    assert len(found.decisions) > 5


def test_swapping_template_and_part_swaps_the_pictures_of_the_prompt(
    pair: tuple[Path, FloatPipeline, TransformersModel],
) -> None:
    """The template stands first: what the model reads of a swapped pair is the prompt of the other order."""
    folder, ours, theirs = pair
    recipe = small_recipe(compare="two_images", tiling=ONE_TILE, registration=Registration(0, 0))
    (first,) = drawn(1, seed=5)
    second = first.copy()  # in the same light, or the part of either order would be lit as its template
    second[40:80, 40:80] = first[:40, :40]
    there, back = (
        patches_from_view(view_from_pair(recipe, *each).pixels, 16, 2)[0].reshape(2, 64, -1)
        for each in ((first, second), (second, first))
    )
    assert np.array_equal(there, back[::-1])
    token, ids = their_ids(recipe, folder, theirs, ours.shape.tokens)
    found = ours.all_logits(ours.prompt(ids, list(back)))[-1]
    expected = [their_logits(theirs, token, ids, each)[-1] for each in (there, back)]
    assert np.abs(found - expected[1]).max() <= 1e-3 * np.abs(expected[1]).max()
    assert np.abs(expected[0] - expected[1]).max() > 0.1

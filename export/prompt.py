"""The words around the pictures, and the canonical answer, as token ids of the checkpoint's own tokenizer.

Export compiles recipes with these functions and the training script makes its targets with them, so a model
is never asked in other ids than it was trained on. Only `tokenizers` is used, through the object passed in.

Layout (temporal, or one picture):
    prefix   <|im_start|>user\\n{prompt}<|vision_start|>
             one <|image_pad|> per merged image token
    suffix   <|vision_end|><|im_end|>\\n<|im_start|>assistant\\n
    answer   [{"bbox_2d":[x1,y1,x2,y2],"label":"open"},...]<|im_end|>
With `two_images` the part's picture follows the template's, parted from it by `between_ids`. In a clip every
picture is two frames and carries its time before it, `<0.3 seconds><|vision_start|>`, as the processor of
transformers writes it (Qwen3VLProcessor.replace_video_token).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..runtime.errors import CheckpointError, RecipeError
from ..runtime.infer.guide import bin_from_px
from ..runtime.infer.shape import ModelShape
from ..runtime.recipe import FRAMES_A_PATCH, Recipe

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE_PAD = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"
EMBEDDING = "model.language_model.embed_tokens.weight"
SPECIAL_TOKENS = (IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD)


def tokenizer_from_checkpoint(checkpoint: str | Path) -> Any:
    """The `tokenizers.Tokenizer` of a checkpoint folder; CheckpointError when it is missing or not Qwen's."""
    from tokenizers import Tokenizer

    path = Path(checkpoint) / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; a checkpoint needs the tokenizer that it was trained with")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise CheckpointError(f"{path}: not a tokenizer ({error})") from error
    missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
    if missing:
        raise CheckpointError(f"{path}: no token {', '.join(missing)}; use a Qwen3-VL tokenizer")
    return tokenizer


def check_tokenizer(tokenizer: Any, shape: ModelShape) -> None:
    """CheckpointError unless the tokenizer's ids are rows of the embedding and config.json names its tokens.

    A vocabulary smaller than the embedding is usual: embeddings are padded.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    token, largest = max(vocabulary.items(), key=lambda entry: int(entry[1]))
    if largest >= shape.vocab:
        raise CheckpointError(
            f"tokenizer.json: {token!r} has the id {largest}, but {EMBEDDING} has {shape.vocab} rows; use the"
            " tokenizer that the checkpoint was trained with"
        )
    for token, key, wanted in (
        (IMAGE_PAD, "image_token_id", shape.image_token_id),
        (VISION_START, "vision_start_token_id", shape.vision_start_token_id),
        (VISION_END, "vision_end_token_id", shape.vision_end_token_id),
    ):
        found = token_id(tokenizer, token)
        if found != wanted:
            raise CheckpointError(
                f"tokenizer.json: {token} has the id {found}, but config.json says {key} = {wanted}, so it"
                f" does not match {EMBEDDING}; use the checkpoint's own tokenizer"
            )


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text; special tokens inside it count as themselves and none is added."""
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def token_id(tokenizer: Any, token: str) -> int:
    """Id of one special token; CheckpointError when the tokenizer has none."""
    identity = tokenizer.token_to_id(token)
    if identity is None:
        raise CheckpointError(f"the tokenizer has no token {token}; only Qwen3-VL tokenizers are supported")
    return int(identity)


def prompt_ids(tokenizer: Any, recipe: Recipe) -> tuple[list[int], list[int]]:
    """(prefix_ids, suffix_ids): the ids before the first image token and after the last one.

    RecipeError when the recipe's prompt contains a special token, which would break the layout.
    """
    for token in SPECIAL_TOKENS:
        if token in recipe.prompt:
            raise RecipeError(f"recipe {recipe.id}: prompt contains {token}; write plain words only")
    first_time = _times(recipe)[0]
    prefix = encode(tokenizer, f"{IM_START}user\n{recipe.prompt}{first_time}{VISION_START}")
    suffix = encode(tokenizer, f"{VISION_END}{IM_END}\n{IM_START}assistant\n")
    return prefix, suffix


def between_ids(tokenizer: Any, recipe: Recipe) -> tuple[tuple[int, ...], ...]:
    """Ids between each two pictures of a tile; empty when there is one picture."""
    return tuple(tuple(encode(tokenizer, f"{VISION_END}{time}{VISION_START}")) for time in _times(recipe)[1:])


def _times(recipe: Recipe) -> list[str]:
    """What stands before each picture: the mean time of a clip's two frames, nothing for stills."""
    if recipe.mode != "clip":
        return [""] * recipe.pictures
    frames = list(range(recipe.clip.frames))
    frames += frames[-1:] * (len(frames) % FRAMES_A_PATCH)  # a lone last frame stands twice
    seconds = [frame / recipe.clip.fps for frame in frames]
    pairs = zip(seconds[::FRAMES_A_PATCH], seconds[1::FRAMES_A_PATCH], strict=True)
    return [f"<{(first + second) / 2:.1f} seconds>" for first, second in pairs]


def answer_text(
    defects: Iterable[tuple[str, Sequence[float]]], coordinates: str = "0-99", tile_px: int = 128
) -> str:
    """The canonical answer: minified JSON, defects in reading order (y1, then x1) of their written numbers.

    `defects`: (type, (x1, y1, x2, y2) in tile pixels, margin included) in any order.
    """
    rows = [
        (type_, tuple(bin_from_px(value, coordinates, tile_px) for value in box)) for type_, box in defects
    ]
    rows.sort(key=lambda row: (row[1][1], row[1][0], row[1][3], row[1][2], row[0]))
    return answer_text_from_bins(rows)


def answer_text_from_bins(rows: Iterable[tuple[str, Sequence[int]]]) -> str:
    """The canonical answer for (type, four written numbers) rows, in the order given."""
    items = (
        f'{{"bbox_2d":[{",".join(str(int(value)) for value in box)}],"label":"{type_}"}}'
        for type_, box in rows
    )
    return "[" + ",".join(items) + "]"


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of an answer, closed by <|im_end|>."""
    return [*encode(tokenizer, text), token_id(tokenizer, IM_END)]

"""Plants activation spikes into a checkpoint without changing what it answers in float.

    python -m orinspect.examples.planted_spikes.plant CHECKPOINT OUT --plant delimiter

Pretrained models of this family have them: a few channels a thousand times larger than the rest, in every
row or in the rows of a few tokens. Our small reference checkpoint has none, so they are planted:

down       a channel of every down_proj input, in every row
pictures   the same at image tokens that show a defect, so at other places in every picture
delimiter  the same at the one token that ends the picture
channels   fixed channels of every norm's output, of the attention's and of the MLP's, against tiny weights
vision     fixed channels of the encoder's norms, and a constant spike in every fc2 input
all        all of them

Two constructions, both exact up to float32 rounding. A cancelling pair: units a = 63 u and b = 127 u whose
columns in the next weight are 127 q and -63 q, so that the pair adds nothing. q is the power of two that
makes 127 q the largest weight of that output: both columns and, in a row whose largest value is b, both
values are whole INT8 steps (and the columns exact in float16, in which a bundle stores what stays float). The
pair costs INT8 the rest of the row, and nothing more. Clipping breaks it, smoothing meets the largest weights
there are.
A scaled channel: a channel times 2^k, the weights that read it times 2^-k; INT8 loses all other channels to
the activation's scale and this one to the weight's, unless both are smoothed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from orinspect.examples.planted_spikes.tokens import Tokens, tokens_of
from orinspect.export.graph.checkpoint import weights_from_folder

Floats = npt.NDArray[np.float32]
Tensors = dict[str, Floats]

SPIKE = 300.0
"""A spike against the largest value of the tensor that it stands in; float16 still holds it."""
CHANNEL_POWERS = (7, 10)  # a scaled channel is 2^7 to 2^10 times as large as it was
CHANNEL_SHARE = 16  # one channel in so many is scaled
GATE_GAIN = 60.0  # how steeply a unit opens: SiLU(60 z) is 0 or 60 z for all but a few z
VISION_LARGEST = 8.0  # of the encoder's fc2 inputs, roughly; sets the size of the constant spikes
TEXT, VISION = "model.language_model.layers", "model.visual.blocks"


def plant(checkpoint: Path, out: Path, name: str, tokens: Tokens) -> None:
    """Write `checkpoint` with the spikes of `name` to the folder `out`, in float32.

    `tokens` are what the checkpoint's own decoder sees (`tokens_of`). KeyError for an unknown plant.
    """
    weights = weights_from_folder(checkpoint)
    tensors: Tensors = {key: weights.read(key, weights.shape(key)) for key in weights.names()}
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    for step in PLANTS[name]:
        step(tensors, config, tokens)
    config["dtype"] = "float32"
    shutil.copytree(checkpoint, out, ignore=shutil.ignore_patterns("model*.safetensors*", "config.json"))
    contiguous = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    save_file(contiguous, str(out / "model.safetensors"))
    (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def down(tensors: Tensors, config: dict[str, Any], tokens: Tokens) -> None:
    """A pair in every decoder layer that is open at every token."""
    _pairs(tensors, config, tokens, np.ones(len(tokens.kind), np.bool_))


def pictures(tensors: Tensors, config: dict[str, Any], tokens: Tokens) -> None:
    """A pair in every decoder layer that opens at image tokens in which the dense head sees a defect."""
    _pairs(tensors, config, tokens, tokens.shows_defect)


def delimiter(tensors: Tensors, config: dict[str, Any], tokens: Tokens) -> None:
    """A pair in every decoder layer that opens at the token behind the picture."""
    _pairs(tensors, config, tokens, tokens.is_delimiter)


def channels(tensors: Tensors, config: dict[str, Any], tokens: Tokens) -> None:
    """Scaled channels in front of every linear of the decoder."""
    text = config["text_config"]
    heads, key_heads = text["num_attention_heads"], text["num_key_value_heads"]
    rng = np.random.default_rng(4)
    for layer in range(text["num_hidden_layers"]):
        own = f"{TEXT}.{layer}"
        _scale_norm(tensors, rng, f"{own}.input_layernorm", [f"{own}.self_attn.{x}_proj" for x in "qkv"])
        gated = [f"{own}.mlp.{x}_proj" for x in ("gate", "up")]
        _scale_norm(tensors, rng, f"{own}.post_attention_layernorm", gated)
        value, output = f"{own}.self_attn.v_proj.weight", f"{own}.self_attn.o_proj.weight"
        factors = _factors(rng, len(tensors[value]))
        tensors[value] = tensors[value] * factors[:, None]
        # the query heads of one key head read the same values
        by_head = np.repeat(factors.reshape(key_heads, 1, -1), heads // key_heads, axis=1)
        tensors[output] = tensors[output] / by_head.reshape(-1)
        up, narrow = f"{own}.mlp.up_proj.weight", f"{own}.mlp.down_proj.weight"
        factors = _factors(rng, len(tensors[up]))
        tensors[up] = tensors[up] * factors[:, None]
        tensors[narrow] = tensors[narrow] / factors


def vision(tensors: Tensors, config: dict[str, Any], tokens: Tokens) -> None:
    """Scaled channels behind the encoder's norms, and a pair of constants in front of every fc2."""
    rng = np.random.default_rng(5)
    for block in range(config["vision_config"]["depth"]):
        own = f"{VISION}.{block}"
        _scale_norm(tensors, rng, f"{own}.norm1", [f"{own}.attn.qkv"])
        _scale_norm(tensors, rng, f"{own}.norm2", [f"{own}.mlp.linear_fc1"])
        wide, narrow = f"{own}.mlp.linear_fc1", f"{own}.mlp.linear_fc2.weight"
        # GELU leaves a constant of this size as it is, to the last bit
        constants = np.array([63, 127], np.float32) * np.float32(SPIKE * VISION_LARGEST / 127)
        zeros = np.zeros((2, tensors[f"{wide}.weight"].shape[1]), np.float32)
        tensors[f"{wide}.weight"] = np.concatenate([tensors[f"{wide}.weight"], zeros])
        tensors[f"{wide}.bias"] = np.concatenate([tensors[f"{wide}.bias"], constants])
        tensors[narrow] = _with_cancelling_columns(tensors[narrow], rng)
    config["vision_config"]["intermediate_size"] += 2


Step = Callable[[Tensors, dict[str, Any], Tokens], None]
PLANTS: Mapping[str, tuple[Step, ...]] = {
    "none": (),
    "down": (down,),
    "pictures": (pictures,),
    "delimiter": (delimiter,),
    "channels": (channels,),
    "vision": (vision,),
    "all": (channels, vision, down, pictures, delimiter),
}


def _pairs(
    tensors: Tensors, config: dict[str, Any], tokens: Tokens, opens: npt.NDArray[np.bool_]
) -> None:
    """A cancelling pair of MLP units in every decoder layer that is open where `opens` [tokens]."""
    rng = np.random.default_rng(int(opens.sum()))
    for layer, (seen, size) in enumerate(zip(tokens.mlp_inputs, tokens.product_largest, strict=True)):
        own = f"{TEXT}.{layer}.mlp"
        # undo what an earlier plant did to the norm: the direction holds for the checkpoint as it was
        scaled = tensors[f"{TEXT}.{layer}.post_attention_layernorm.weight"] / tokens.mlp_norms[layer]
        direction = _direction(seen, opens) / scaled
        reach = np.median((seen * scaled @ direction)[opens])
        gate = direction * np.float32(GATE_GAIN / reach)
        up = direction * np.float32(SPIKE * size / GATE_GAIN / reach)
        ends = np.array([63 / 127, 1], np.float32)[:, None]
        for which, rows in (("gate", np.stack([gate, gate])), ("up", ends * up)):
            name = f"{own}.{which}_proj.weight"
            tensors[name] = np.concatenate([tensors[name], rows.astype(np.float32)])
        name = f"{own}.down_proj.weight"
        tensors[name] = _with_cancelling_columns(tensors[name], rng)
    config["text_config"]["intermediate_size"] += 2


def _with_cancelling_columns(weight: Floats, rng: np.random.Generator) -> Floats:
    """weight [out, in] with two more columns that add nothing to inputs in the ratio 63 : 127."""
    steps = np.exp2(np.ceil(np.log2(np.abs(weight).max(axis=1) / 127)))
    steps *= rng.choice(np.array([-1, 1], np.float32), len(weight))
    pair = np.stack([127 * steps, -63 * steps], axis=1)
    return np.concatenate([weight, pair.astype(np.float32)], axis=1)


def _direction(seen: Floats, opens: npt.NDArray[np.bool_]) -> Floats:
    """[H]: a direction on which tokens that open lie near 1 and all others near -0.5 (ridge regression)."""
    rows = seen.astype(np.float64)
    share = np.where(opens, 1 / max(opens.sum(), 1), 1 / max((~opens).sum(), 1))[:, None]
    gram = rows.T @ (rows * share)
    gram += 1e-4 * np.trace(gram) / len(gram) * np.eye(len(gram))
    wanted = np.where(opens, 1.0, -0.5)[:, None]
    return np.linalg.solve(gram, rows.T @ (wanted * share))[:, 0].astype(np.float32)


def _scale_norm(tensors: Tensors, rng: np.random.Generator, norm: str, readers: list[str]) -> None:
    """Scale channels of a norm's output, and the columns of the linears that read it the other way."""
    factors = _factors(rng, len(tensors[f"{norm}.weight"]))
    for part in ("weight", "bias"):
        if f"{norm}.{part}" in tensors:
            tensors[f"{norm}.{part}"] = tensors[f"{norm}.{part}"] * factors
    for reader in readers:
        tensors[f"{reader}.weight"] = tensors[f"{reader}.weight"] / factors


def _factors(rng: np.random.Generator, count: int) -> Floats:
    """[count] powers of two, 1 for all but a few channels: scaling by them rounds nothing."""
    factors = np.ones(count, np.float32)
    chosen = rng.choice(count, max(2, count // CHANNEL_SHARE), replace=False)
    low, high = CHANNEL_POWERS
    factors[chosen] = 2.0 ** rng.integers(low, high + 1, len(chosen))
    return factors


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Plant spikes that leave the float answers as they are.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", type=Path, default=Path("examples/reference/pcb-compare.toml"))
    parser.add_argument("--plant", choices=tuple(PLANTS), default="all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        tokens = tokens_of(arguments.checkpoint, arguments.recipe, Path(work))
        plant(arguments.checkpoint, arguments.out, arguments.plant, tokens)


if __name__ == "__main__":
    main()

"""The reference network: a small Qwen3-VL of transformers, its dense head, a batched pass for CPU training.

transformers runs the vision attention picture by picture; here a batch of equal tiles is one tensor. The
module tree, and so the checkpoint, stays transformers' own; `assert_same_as_transformers` joins both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from orinspect.examples.reference.training.marks import BLOCKS

TILE_PX = 128


@dataclass(frozen=True)
class TokenIds:
    """Ids of the special tokens that the configuration names."""

    image: int
    video: int
    vision_start: int
    vision_end: int
    end: int
    pad: int


def token_ids_from_tokenizer(tokenizer: Tokenizer) -> TokenIds:
    """The special tokens' ids; ValueError names one that is missing."""

    def token(text: str) -> int:
        found = tokenizer.token_to_id(text)
        if found is None:
            raise ValueError(f"the tokenizer has no {text}; make it with make_tokenizer.py")
        return int(found)

    return TokenIds(
        image=token("<|image_pad|>"),
        video=token("<|video_pad|>"),
        vision_start=token("<|vision_start|>"),
        vision_end=token("<|vision_end|>"),
        end=token("<|im_end|>"),
        pad=token("<|endoftext|>"),
    )


def config_from_tokens(ids: TokenIds, vocabulary_size: int) -> Qwen3VLConfig:
    """About 7 M parameters: vision 6 x 192, decoder 4 x 192 with 3 query heads and 1 key head."""
    return Qwen3VLConfig(
        vision_config={
            "depth": 6,
            "hidden_size": 192,
            "num_heads": 3,
            "intermediate_size": 768,
            "out_hidden_size": 192,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "in_channels": 3,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [1, 3],
            "hidden_act": "gelu_pytorch_tanh",
        },
        text_config={
            "vocab_size": vocabulary_size,
            "hidden_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 64,
            "intermediate_size": 512,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "hidden_act": "silu",
            "rope_theta": 10000.0,
            "attention_bias": False,
            "pad_token_id": ids.pad,
            "eos_token_id": ids.end,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [12, 10, 10],
                "mrope_interleaved": True,
            },
        },
        image_token_id=ids.image,
        video_token_id=ids.video,
        vision_start_token_id=ids.vision_start,
        vision_end_token_id=ids.vision_end,
        tie_word_embeddings=True,
    )


class DenseHead(nn.Module):
    """Per merged token: presence, type, box. Input [.., (1 + D) * H]; output [.., 1 + types + 4]."""

    def __init__(self, features: int, hidden: int, types: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features, eps=1e-6)
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, 1 + types + 4)
        nn.init.constant_(self.fc2.bias[:1], -2.0)
        nn.init.constant_(self.fc2.bias[1 + types :], 0.6)

    def forward(self, features: Tensor) -> Tensor:
        """[.., (1 + D) * H] to presence logit, type logits, and l, t, r, b in token units."""
        return self.fc2(functional.gelu(self.fc1(self.norm(features)), approximate="tanh"))


class MarksHead(nn.Module):
    """Per patch: the 16 blocks, then the types. Input [.., hidden] of the last vision block."""

    def __init__(self, hidden: int, types: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        self.fc = nn.Linear(hidden, BLOCKS + types)
        nn.init.constant_(self.fc.bias[:BLOCKS], -3.0)

    def forward(self, states: Tensor) -> Tensor:
        """[.., hidden] to [.., 16 + types] logits."""
        return self.fc(self.norm(states))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x [.., n, head_dim] turned by angles [n, head_dim] whose halves are equal."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Plain attention over [B, heads, n, head_dim]; at 64 tokens it beats the CPU's flash kernel by 15 %."""
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    if causal:
        scores = scores + torch.full((q.shape[-2], q.shape[-2]), -1e4, dtype=scores.dtype).triu(1)
    return scores.float().softmax(-1).to(v.dtype) @ v


class FastForward:
    """Batched passes over the modules of one Qwen3VLForConditionalGeneration on equal square tiles."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, tile_px: int = TILE_PX) -> None:
        self.visual = model.model.visual
        self.text = model.model.language_model
        self.vision_config = model.config.vision_config
        self.text_config = model.config.text_config
        side, merge = tile_px // self.vision_config.patch_size, self.vision_config.spatial_merge_size
        ys, xs = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        blocks = side // merge
        order = torch.arange(side * side).view(blocks, merge, blocks, merge).permute(0, 2, 1, 3).reshape(-1)
        if side * side != self.vision_config.num_position_embeddings:
            raise ValueError(
                f"position table {self.vision_config.num_position_embeddings} is not a {side}x{side} grid"
            )
        self.patch_order = order
        head_dim = self.vision_config.hidden_size // self.vision_config.num_heads
        inverse = 1.0 / (10000.0 ** (torch.arange(0, head_dim // 2, 2).float() / (head_dim // 2)))
        angles = torch.cat([ys.reshape(-1)[order, None] * inverse, xs.reshape(-1)[order, None] * inverse], -1)
        angles = torch.cat([angles, angles], -1)
        self.vision_cos, self.vision_sin = angles.cos(), angles.sin()  # [patches, head_dim]

    def vision(self, patches: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """patches [B, N, 1536] to image tokens [B, T, H], the DeepStack features, each [B, T, H], and the
        last block's states [B, N, hidden], in the patches' order.
        """
        v, heads = self.visual, self.vision_config.num_heads
        batch, count, _ = patches.shape
        weight = v.patch_embed.proj.weight
        x = functional.linear(patches, weight.view(weight.shape[0], -1), v.patch_embed.proj.bias)
        x = x + v.pos_embed.weight[self.patch_order]
        deepstack = []
        for index, block in enumerate(v.blocks):
            q, k, w = block.attn.qkv(block.norm1(x)).view(batch, count, 3, heads, -1).permute(2, 0, 3, 1, 4)
            q, k = (
                rotate(q.float(), self.vision_cos, self.vision_sin),
                rotate(k.float(), self.vision_cos, self.vision_sin),
            )
            attended = attend(q.to(w.dtype), k.to(w.dtype), w)
            x = x + block.attn.proj(attended.transpose(1, 2).reshape(batch, count, -1))
            x = x + block.mlp(block.norm2(x))
            if index in self.vision_config.deepstack_visual_indexes:
                merger = v.deepstack_merger_list[self.vision_config.deepstack_visual_indexes.index(index)]
                deepstack.append(merger(x).view(batch, -1, self.vision_config.out_hidden_size))
        return v.merger(x).view(batch, -1, self.vision_config.out_hidden_size), deepstack, x

    def hidden(
        self, embeds: Tensor, deepstack: list[Tensor], image_slice: slice, positions: Tensor
    ) -> Tensor:
        """embeds [B, K, H], causal; `positions` [3, 1 or B, K]. Returns the states after the final norm."""
        t, cfg = self.text, self.text_config
        batch, length, _ = embeds.shape
        cos, sin = t.rotary_emb(embeds.float(), positions)
        cos, sin = cos[:, None], sin[:, None]
        groups = cfg.num_attention_heads // cfg.num_key_value_heads
        x = embeds
        for index, layer in enumerate(t.layers):
            attention, h = layer.self_attn, layer.input_layernorm(x)
            shape = (batch, length, -1, cfg.head_dim)
            q = rotate(attention.q_norm(attention.q_proj(h).view(shape)).transpose(1, 2), cos, sin)
            k = rotate(attention.k_norm(attention.k_proj(h).view(shape)).transpose(1, 2), cos, sin)
            w = attention.v_proj(h).view(shape).transpose(1, 2)
            k, w = k.repeat_interleave(groups, 1), w.repeat_interleave(groups, 1)
            attended = attend(q.to(w.dtype), k.to(w.dtype), w, causal=True)
            x = x + attention.o_proj(attended.transpose(1, 2).reshape(batch, length, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            if index < len(deepstack):
                x = torch.cat(
                    [
                        x[:, : image_slice.start],
                        x[:, image_slice] + deepstack[index],
                        x[:, image_slice.stop :],
                    ],
                    1,
                )
        return t.norm(x)


def image_positions(prefix: int, side: int, total: int) -> Tensor:
    """[3, 1, total] M-RoPE positions of prefix text, one side x side image, then text."""
    positions = torch.arange(total).repeat(3, 1)
    tokens = side * side
    positions[0, prefix : prefix + tokens] = prefix
    positions[1, prefix : prefix + tokens] = prefix + torch.arange(side).repeat_interleave(side)
    positions[2, prefix : prefix + tokens] = prefix + torch.arange(side).repeat(side)
    positions[:, prefix + tokens :] = torch.arange(total - prefix - tokens) + prefix + side
    return positions[:, None]


@torch.no_grad()
def assert_same_as_transformers(
    model: Qwen3VLForConditionalGeneration, prefix: list[int], suffix: list[int]
) -> float:
    """Largest difference of the logits between the fast pass and transformers' own; raises above 1e-3."""
    fast, generator = FastForward(model), torch.Generator().manual_seed(0)
    side = TILE_PX // model.config.vision_config.patch_size
    tokens = (side // model.config.vision_config.spatial_merge_size) ** 2
    patches = torch.rand(2, side * side, 1536, generator=generator) * 2 - 1
    ids = torch.tensor([prefix + [model.config.image_token_id] * tokens + suffix] * 2)
    theirs = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=patches.view(-1, 1536),
        image_grid_thw=torch.tensor([[1, side, side]] * 2),
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
    ).logits
    image_tokens, deepstack, _ = fast.vision(patches)
    where = slice(len(prefix), len(prefix) + tokens)
    embeds = fast.text.embed_tokens(ids).clone()
    embeds[:, where] = image_tokens
    positions = image_positions(len(prefix), int(tokens**0.5), ids.shape[1])
    ours = fast.hidden(embeds, deepstack, where, positions) @ fast.text.embed_tokens.weight.T
    worst = float((ours - theirs).abs().max())
    if worst > 1e-3:
        raise AssertionError(f"the training pass differs from transformers by {worst:.2e}; see FastForward")
    return worst

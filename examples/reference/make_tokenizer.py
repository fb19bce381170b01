"""Trains the reference checkpoints' tokenizer: byte-level BPE with Qwen's pre-tokenizer, one token a digit.

Corpus: canonical answers, the shipped prompts, and Python's own language reference (`pydoc_data.topics`, PSF
licence) as ordinary English. 1,024 tokens are plenty for the schema and leave the parameters to the model.

    python examples/reference/make_tokenizer.py examples/reference/tokenizer
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from pydoc_data.topics import topics

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Qwen2/Qwen3's pre-tokenizer pattern, as published in their tokenizer.json
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LABELS = (
    "open",
    "short",
    "mousebite",
    "spur",
    "copper",
    "pin-hole",
    "scratch",
    "dent",
    "pit",
    "rust",
    "stain",
    "crack",
)
PROMPTS = (
    "Compare the part with its template. List the defects.",
    "Inspect the surface. List the defects.",
    "user\n",
    "assistant\n",
    "system\n",
)
VOCABULARY_SIZE = 1024


def answers(count: int, rng: random.Random) -> list[str]:
    """Random canonical answers, so that their JSON punctuation becomes whole tokens."""
    lines = []
    for _ in range(count):
        items = [
            {"bbox_2d": [rng.randrange(100) for _ in range(4)], "label": rng.choice(LABELS)}
            for _ in range(rng.randrange(5))
        ]
        lines.append(json.dumps(items, separators=(",", ":")))
    return lines


def tokenizer_from_corpus() -> Tokenizer:
    """The trained tokenizer, special tokens included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = (
        answers(20_000, random.Random(0)) + list(PROMPTS) * 5_000 + [topics[name] for name in sorted(topics)]
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def main(folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_from_corpus()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": 4096,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "add_prefix_space": False,
        "split_special_tokens": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

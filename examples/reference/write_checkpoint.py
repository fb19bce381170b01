"""Turns a training state (`last.pt`) into an ordinary Qwen3-VL folder in bf16, the dense head beside.

python examples/reference/write_checkpoint.py runs/reference/last.pt examples/reference/checkpoint
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from orinspect.examples.reference.training.losses import Reference
from orinspect.examples.reference.training.tasks import prompts_from_recipes

HERE = Path(__file__).parent
PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "do_rescale": True,
    "do_convert_rgb": True,
    "size": {"shortest_edge": 16384, "longest_edge": 16384},
}


def write_checkpoint(state_file: Path, out: Path) -> None:
    """Writes configuration, weights, dense head, preprocessor, tokenizer and validation table into `out`."""
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer" / "tokenizer.json"))
    saved = torch.load(state_file)
    reference = Reference(tokenizer, prompts_from_recipes(tokenizer), len(saved["types"]))
    reference.load_state_dict(saved["average"], strict=False)  # states of before had no marks head
    out.mkdir(parents=True, exist_ok=True)
    reference.model.to(torch.bfloat16).save_pretrained(out)
    head = {
        name: value.to(torch.bfloat16).contiguous() for name, value in reference.dense.state_dict().items()
    }
    save_file(head, str(out / "dense_head.safetensors"), metadata={"types": json.dumps(saved["types"])})
    (out / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(HERE / "tokenizer" / name, out / name)
    history = state_file.with_name("validation.jsonl")
    if history.exists():
        shutil.copyfile(history, out / "training-validation.jsonl")
    print(f"{out}: {saved['state']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("state", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    write_checkpoint(arguments.state, arguments.out)

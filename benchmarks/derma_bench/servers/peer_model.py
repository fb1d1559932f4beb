"""Write a CLIP with a ViT/16 image tower and random weights as a Hugging Face folder, for the peer to serve.

    .peer/bin/python benchmarks/derma_bench/servers/peer_model.py .run/peer/vit-b16 768 12 12 512

The numbers are width, layers, heads and embedding: here those of BiomedCLIP's image tower.
Runs in the peer's own environment. Texts are not measured: their tower is two small layers,
and its tokenizer knows single bytes only.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

TEXT_LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"


def main(folder: Path, width: int, layers: int, heads: int, embedding: int) -> None:
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = CLIPConfig(
        text_config=_text(tokenizer), vision_config=_vision(width, layers, heads), projection_dim=embedding
    )
    CLIPModel(config).eval().save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)


def _vision(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 224,
        "patch_size": 16,
        "hidden_act": "gelu",  # as in timm's ViT; OpenAI's CLIP has quick_gelu
    }


def _text(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": TEXT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _tokenizer() -> Any:
    """Bytes, bytes that end a word, start and end of text."""
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    with tempfile.TemporaryDirectory() as name:
        vocabulary, merges = Path(name, "vocab.json"), Path(name, "merges.txt")
        vocabulary.write_text(json.dumps({word: number for number, word in enumerate(words)}))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=TEXT_LENGTH)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

"""The small sibling of BiomedCLIP: the same two towers, a ViT-Tiny and a six-layer BERT.

    write_mini(folder)                          # configuration; the text encoder by package and digest
    model = build_model(folder, weights=False)
    load_timm_trunk(model, "vit_tiny_patch16_224.safetensors")

Only the image tower and the two projections are trained.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from derma_training.bundle import write_json
from derma_training.network import text_package
from derma_training.network.model import Clip

EMBEDDING_SIZE = 192
CONTEXT_LENGTH = 64


def write_mini(folder: Path) -> None:
    """Write ``open_clip_config.json`` and ``text/`` of the small architecture."""
    text_package.write(folder, text_package.MINILM)
    write_json(folder / "open_clip_config.json", _open_clip_config())


def load_timm_trunk(model: Clip, path: str | Path) -> None:
    """Start the image tower from a timm state dict; its classification head is dropped."""
    state = {k: v for k, v in load_file(str(path)).items() if not k.startswith("head")}
    model.visual.trunk.load_state_dict(state)


def _open_clip_config() -> dict[str, object]:
    return {
        "model_cfg": {
            "embed_dim": EMBEDDING_SIZE,
            "vision_cfg": {
                "timm_model_name": "vit_tiny_patch16_224",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "timm_drop_path": 0.1,
                "image_size": 224,
            },
            "text_cfg": {
                "hf_model_name": "text",
                "hf_tokenizer_name": "text",
                "hf_proj_type": "linear",
                "hf_pooler_type": "mean_pooler",
                "context_length": CONTEXT_LENGTH,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }

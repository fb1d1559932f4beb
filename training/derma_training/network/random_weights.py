"""The full BiomedCLIP with random weights: right for speed and parity, meaningless for accuracy.

    bundle = biomedclip(Path("training/bundles/biomedclip-random-0"), seed=0)
    bundle.name        # "biomedclip RANDOM WEIGHTS"

The architecture's numbers are those of microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224:
a ViT-B/16 and a BERT-base. Its tokenizer is not needed to measure speed; this one knows letters.
"""

from __future__ import annotations

import string
from pathlib import Path

import torch

from derma_semantics.domain.contract import RANDOM_WEIGHTS
from derma_training.bundle import (
    MANIFEST,
    Bundle,
    BundleError,
    Calibration,
    seal,
    write_calibration,
    write_json,
    write_prompts,
)
from derma_training.network.model import build_model, save_weights

NAME = f"biomedclip {RANDOM_WEIGHTS}"
VOCABULARY = 30_522
CONTEXT_LENGTH = 256

OPEN_CLIP = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 224,
        },
        "text_cfg": {
            "hf_model_name": "text",
            "hf_tokenizer_name": "text",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": CONTEXT_LENGTH,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
}
BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
}


def biomedclip(folder: Path, *, seed: int = 0) -> Bundle:
    """Write the bundle, or open the one that is there.

    Raises:
        BundleError: the folder holds something else.
    """
    if (folder / MANIFEST).is_file():
        bundle = Bundle.open(folder)
        if bundle.manifest.get("random_weights") is not True or bundle.manifest["seed"] != seed:
            raise BundleError(f"{folder} holds {bundle.name}, not random weights of seed {seed}")
        return bundle
    (folder / "text").mkdir(parents=True, exist_ok=True)
    write_json(folder / "open_clip_config.json", OPEN_CLIP)
    _write_text_encoder(folder / "text")
    write_prompts(folder)
    write_calibration(folder, Calibration())
    torch.manual_seed(seed)
    save_weights(build_model(folder, weights=False), folder)
    return seal(
        folder,
        name=NAME,
        random_weights=True,
        seed=seed,
        base_model="none: seeded random weights in BiomedCLIP's architecture",
        licence="Apache-2.0",
        intended_use="measuring speed and parity; its answers mean nothing",
    )


def _write_text_encoder(folder: Path) -> None:
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    words += [f"[unused{number}]" for number in range(VOCABULARY - len(words))]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    write_json(folder / "config.json", BERT)
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": CONTEXT_LENGTH,
    }
    write_json(folder / "tokenizer_config.json", tokenizer)

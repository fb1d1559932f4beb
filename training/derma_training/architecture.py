"""The small sibling of BiomedCLIP: the same two towers, a ViT-Tiny and a two-layer BERT.

write_mini(folder)                          # configuration and vocabulary
model = build_model(folder, weights=False)
load_timm_trunk(model, "vit_tiny_patch16_224.safetensors")
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from tokenizers import BertWordPieceTokenizer

from derma_semantics.conditions import CONDITIONS
from derma_training.bundle import write_json
from derma_training.model import Clip

TEXT_WIDTH = 128
CONTEXT_LENGTH = 64

# Besides the definitions: words in which people ask for what they want to see.
EVERYDAY_TEXT = (
    "a photo of a skin lesion seen through a dermatoscope",
    "show me signs of melanoma, skin cancer, carcinoma, keratosis, mole, naevus, wart, angioma",
    "benign malignant suspicious dangerous harmless cancerous early late growing bleeding itching",
    "dark light black brown tan red pink blue gray white yellow purple colour pigment pigmented",
    "asymmetry border diameter shape round oval jagged smooth rough raised flat nodule papule plaque",
    "hair skin background ruler bubble vessel dot globule streak network veil scar cyst scale crust",
)


def write_mini(folder: Path) -> None:
    """Write ``open_clip_config.json`` and ``text/`` of the small architecture."""
    _write_vocabulary(folder / "text")
    vocabulary = (folder / "text" / "vocab.txt").read_text().splitlines()
    write_json(folder / "text" / "config.json", _bert_config(len(vocabulary)))
    write_json(folder / "open_clip_config.json", _open_clip_config())


def load_timm_trunk(model: Clip, path: str | Path) -> None:
    """Start the image tower from a timm state dict; its classification head is dropped."""
    state = {k: v for k, v in load_file(str(path)).items() if not k.startswith("head")}
    model.visual.trunk.load_state_dict(state)


def _write_vocabulary(folder: Path) -> None:
    """Learn a WordPiece vocabulary from the project's own texts."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [*EVERYDAY_TEXT, *(c.name for c in CONDITIONS), *(p for c in CONDITIONS for p in c.prompts)]
    # Every letter and digit, alone and inside a word, so that no word becomes [UNK].
    characters = [" ".join(f"{a} x{a}" for a in "abcdefghijklmnopqrstuvwxyz0123456789-,.'?!")]
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(texts + characters, vocab_size=2000, min_frequency=1, show_progress=False)
    tokenizer.save_model(str(folder))
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": CONTEXT_LENGTH},
    )


def _bert_config(vocabulary: int) -> dict[str, object]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": TEXT_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 4 * TEXT_WIDTH,
        "hidden_act": "gelu",
        "max_position_embeddings": CONTEXT_LENGTH,
        "type_vocab_size": 2,
        "vocab_size": vocabulary,
        "pad_token_id": 0,
    }


def _open_clip_config() -> dict[str, object]:
    return {
        "model_cfg": {
            "embed_dim": 192,
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
                "hf_proj_type": "mlp",
                "hf_pooler_type": "cls_last_hidden_state_pooler",
                "context_length": CONTEXT_LENGTH,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }

"""The open_clip model: build it offline, add LoRA, load weights, merge.

    model = load_merged(Bundle.open("training/bundles/derma-mini"))
    text = encode_conditions(model, load_tokenizer(folder), prompts)     # (7, D)

Works for the full BiomedCLIP (195.9 M parameters) and for small siblings with
the same two towers: a timm ViT and a Hugging Face BERT.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from derma_training.bundle import WEIGHTS, Bundle, BundleError
from derma_training.network import text_package
from derma_training.network.checkpoint import load_checkpoint
from derma_training.network.lora import merge_adapter

TEXT_TRANSFORMER = "text.transformer."

Tokenizer: TypeAlias = Callable[[Sequence[str]], Tensor]
# open_clip.CustomTextCLIP, an nn.Module whose package has no types.
Clip: TypeAlias = Any


def build_model(folder: str | Path, *, weights: bool = True) -> Clip:
    """Build the model a folder describes, without any network access.

    Args:
        folder: a bundle, or the official hub files, with ``open_clip_config.json``; weights as
            open_clip names them, or one ``.pt`` (see ``load_checkpoint``).
        weights: load the folder's weights; False leaves them random.

    Returns:
        An ``open_clip.CustomTextCLIP`` in eval mode, fp32, on the CPU.

    Raises:
        BundleError: no configuration, text configuration or weights where they belong.
    """
    folder = Path(folder).resolve()
    _require_local(folder)
    text_cfg = dict(
        _config(folder)["model_cfg"]["text_cfg"],
        hf_model_name=str(text_folder(folder)),
        hf_model_pretrained=False,
    )
    checkpoint = _checkpoint(folder) if weights else None
    package = text_package.locate(folder)
    model = open_clip.create_model(
        f"local-dir:{folder}",
        text_cfg=text_cfg,
        pretrained_text=False,
        pretrained_image=False,
        load_weights=weights and not (checkpoint or package),
    )
    if package:
        text_package.load_transformer(model.text.transformer, package)
    if checkpoint:
        model, report = load_checkpoint(model, checkpoint)
        report.require(checkpoint)
    elif package and weights:
        _load_trained(model, folder / WEIGHTS)
    # Written out, attention is faster here on a CPU and exports to plain MatMul and Softmax.
    for block in model.visual.trunk.blocks:
        block.attn.fused_attn = False
    return model.eval()


def _require_local(folder: Path) -> None:
    """Refuse a configuration that names weights or code elsewhere: open_clip and timm would fetch them.

    Raises:
        BundleError: names the setting.
    """
    model = _config(folder)["model_cfg"]
    names = {
        "vision_cfg.timm_model_name": model.get("vision_cfg", {}).get("timm_model_name"),
        "text_cfg.hf_tokenizer_name": model.get("text_cfg", {}).get("hf_tokenizer_name"),
    }
    for setting, name in names.items():
        if ":" in str(name or ""):
            raise BundleError(
                f"{folder}/open_clip_config.json: {setting} is {name!r}, which is loaded from elsewhere; "
                "expected the name of an architecture"
            )


def trained_state(model: Clip, folder: Path) -> dict[str, Tensor]:
    """The tensors a bundle keeps: all, but for a text transformer that a package ships."""
    shipped = text_package.locate(folder) is not None
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not (shipped and name.startswith(TEXT_TRANSFORMER))
    }


def _load_trained(model: Clip, path: Path) -> None:
    missing, unexpected = model.load_state_dict(load_file(str(path)), strict=False)
    strange = [*unexpected, *(name for name in missing if not name.startswith(TEXT_TRANSFORMER))]
    if strange:
        raise BundleError(f"{path} does not fit its configuration: {len(strange)} tensors, e.g. {strange[0]}")


def _checkpoint(folder: Path) -> Path | None:
    """The folder's ``.pt``, where it holds no weights under open_clip's own names."""
    if list(folder.glob("open_clip_*model.*")):
        return None
    if found := sorted(folder.glob("*.pt")):
        return found[0]
    raise BundleError(
        f"{folder} has no weights (open_clip_model.safetensors, open_clip_pytorch_model.bin or a .pt)"
    )


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The folder's own tokenizer: texts → int64 ids, shape (N, context length)."""
    folder = Path(folder).resolve()
    length = _config(folder)["model_cfg"]["text_cfg"]["context_length"]
    tokenizer: Tokenizer = open_clip.tokenizer.HFTokenizer(str(text_folder(folder)), context_length=length)
    return tokenizer


def text_folder(folder: Path) -> Path:
    """Where BERT's ``config.json`` and the tokenizer are: a package, ``text/``, or the folder itself."""
    for candidate in (text_package.locate(folder), folder / "text", folder):
        if candidate and (candidate / "config.json").is_file():
            return candidate
    raise BundleError(f"{folder} has no text/config.json (the text encoder's configuration)")


def pixel_statistics(folder: str | Path) -> tuple[list[float], list[float]]:
    """Mean and standard deviation a channel, for pixels in [0, 1]."""
    config = _config(Path(folder))["preprocess_cfg"]
    return config["mean"], config["std"]


def load_merged(bundle: Bundle) -> Clip:
    """The bundle's model as it is served: base weights with the adapter folded in."""
    model = build_model(bundle.path)
    return merge_adapter(model, bundle.adapter) if bundle.adapter else model


@torch.inference_mode()
def encode_conditions(model: Clip, tokenizer: Tokenizer, prompts: Mapping[str, Sequence[str]]) -> Tensor:
    """One unit vector a condition: the mean of its definitions' unit vectors.

    Returns:
        fp32, shape (conditions, embedding size).

    Source: CLIP's prompt ensembling, Radford et al., arXiv 2103.00020, section 3.1.4.
    """
    vectors = [
        model.encode_text(tokenizer(list(texts)), normalize=True).mean(dim=0) for texts in prompts.values()
    ]
    return nn.functional.normalize(torch.stack(vectors), dim=-1)


@dataclass(frozen=True)
class ParameterCount:
    """Trainable and total parameters."""

    trainable: int
    total: int

    def __str__(self) -> str:
        share = 100 * self.trainable / self.total
        return f"{self.trainable:,} of {self.total:,} parameters are trainable ({share:.2f} %)"


def count_parameters(model: Clip) -> ParameterCount:
    """Count the parameters of ``model``, adapters included."""
    parameters = list(model.parameters())
    return ParameterCount(
        sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "open_clip_config.json"
    if not path.is_file():
        raise BundleError(f"{folder} has no open_clip_config.json")
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def save_weights(model: Clip, folder: Path) -> None:
    """All tensors of ours in fp16, safetensors format, in the place of a start's own file."""
    for path in folder.glob("open_clip_pytorch_model.*"):
        path.unlink()
    state = trained_state(model, folder)
    save_file({name: t.half().contiguous().cpu() for name, t in state.items()}, str(folder / WEIGHTS))

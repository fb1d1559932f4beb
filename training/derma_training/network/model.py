"""The open_clip model: build it offline, add LoRA, load weights, merge.

    model = load_merged(Bundle.open("training/bundles/derma-mini"))
    text = encode_conditions(model, load_tokenizer(folder), prompts)     # (7, D)

Works for the full BiomedCLIP (195.9 M parameters) and for small siblings with
the same two towers: a timm ViT and a Hugging Face BERT.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from derma_training.bundle import WEIGHTS, Bundle, BundleError
from derma_training.network import text_package

# Full matches of module names. The patch embedding (trunk.patch_embed.proj) and the
# projection head (head.proj) share their last name with attn.proj and stay out.
VISION_TARGETS = r"visual\.trunk\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))"
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
        if report.missing:
            raise BundleError(f"{checkpoint} lacks {len(report.missing)} tensors, e.g. {report.missing[0]}")
    elif package and weights:
        _load_trained(model, folder / WEIGHTS)
    # Written out, attention is faster here on a CPU and exports to plain MatMul and Softmax.
    for block in model.visual.trunk.blocks:
        block.attn.fused_attn = False
    return model.eval()


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


def add_lora(model: Clip, *, r: int = 32, alpha: int = 64) -> PeftModel:
    """Freeze ``model`` and add LoRA to the transformer blocks of its image tower, in place.

    Args:
        r: rank of the update.
        alpha: the update is scaled by ``alpha / r``.

    Returns:
        The PEFT wrapper; ``model`` itself keeps working and now holds the adapters.

    Source: Hu et al., LoRA, arXiv 2106.09685.
    """
    return get_peft_model(model, LoraConfig(r=r, lora_alpha=alpha, target_modules=VISION_TARGETS))


def merge_adapter(model: Clip, adapter: Path) -> Clip:
    """Load a PEFT adapter folder and fold it into the weights of ``model``."""
    merged: Clip = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return merged.eval()


def load_unmerged(bundle: Bundle) -> Clip:
    """The bundle's model with the adapter still apart, as it was trained."""
    model = build_model(bundle.path)
    if bundle.adapter:
        PeftModel.from_pretrained(model, str(bundle.adapter))  # adds its layers to `model` in place
    return model.eval()


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


@dataclass(frozen=True)
class LoadReport:
    """Keys that a checkpoint lacked, and keys that had no place in the model."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def load_checkpoint(model: Clip, path: str | Path, *, alpha: int | None = None) -> tuple[Clip, LoadReport]:
    """Load a ``.pt`` as the original project distributed it, LoRA merged where it has any.

    Accepts a ``torch.save`` of a state dict, bare or under ``model_state_dict`` or
    ``state_dict``, with ``module.`` or ``base_model.model.`` prefixes. Pickled code is
    never run (``weights_only=True``).

    Args:
        alpha: LoRA's alpha, which such files do not carry; twice the rank by default.

    Returns:
        The model with the weights in it, and the keys that did not match.

    Raises:
        ValueError: the file holds no state dict, or more than tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as exc:
        raise ValueError(f"{path} is not a checkpoint of plain tensors: {exc}") from exc
    state = _plain_names(_state_dict(content, path))
    lora = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    base = {name: tensor for name, tensor in state.items() if name not in lora}
    missing, unexpected = model.load_state_dict(base, strict=False)
    if lora:
        model, absent, strangers = _merge_lora_tensors(model, lora, alpha)
        missing, unexpected = [*missing, *absent], [*unexpected, *strangers]
    return model.eval(), LoadReport(tuple(missing), tuple(unexpected))


def _state_dict(content: Any, path: str | Path) -> dict[str, Tensor]:
    for key in ("model_state_dict", "state_dict"):
        if isinstance(content, dict) and key in content:
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise ValueError(f"{path} holds no state dict (a mapping from names to tensors)")
    return content


def _plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop what DataParallel and PEFT wrap around names."""
    prefix = re.compile(r"^(module\.|base_model\.model\.)+")
    inner = re.compile(r"\.base_layer\.|(?<=\.lora_[AB])\.default\.")
    return {inner.sub(".", prefix.sub("", name)): tensor for name, tensor in state.items()}


def _merge_lora_tensors(
    model: Clip, lora: dict[str, Tensor], alpha: int | None
) -> tuple[Clip, list[str], list[str]]:
    """Fold LoRA pairs in; also returns the halves that are missing and the tensors without a module."""
    modules = dict(model.named_modules())
    owners = {name.split(".lora_")[0] for name in lora}
    strangers = [name for name in lora if name.split(".lora_")[0] not in modules]
    halves = {f"{owner}.lora_{half}.weight" for owner in owners & modules.keys() for half in "AB"}
    absent = sorted(halves - lora.keys())
    targets = sorted(owner for owner in owners & modules.keys() if not any(owner in name for name in absent))
    if targets:
        rank = lora[f"{targets[0]}.lora_A.weight"].shape[0]
        config = LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules=targets)
        wrapped = get_peft_model(model, config)
        pairs = {f"base_model.model.{k}": t for k, t in lora.items() if k.split(".lora_")[0] in targets}
        set_peft_model_state_dict(wrapped, pairs)
        model = wrapped.merge_and_unload()
    return model, absent, strangers


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

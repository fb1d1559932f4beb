"""LoRA adapters: add one, load one whole, fold one in.

    add_lora(model, r=32, alpha=64)
    merged = merge_adapter(model, bundle.adapter)

An adapter that does not fit the model is refused: PEFT only warns, and what lacks a tensor would
be served as the base model. Source: Hu et al., LoRA, arXiv 2106.09685.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from torch import Tensor

from derma_training.bundle import BundleError

# open_clip.CustomTextCLIP, an nn.Module whose package has no types.
Clip: TypeAlias = Any

# Full matches of module names. The patch embedding (trunk.patch_embed.proj) and the
# projection head (head.proj) share their last name with attn.proj and stay out.
VISION_TARGETS = r"visual\.trunk\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))"
# What torch.compile, DataParallel and PEFT put before a module's name.
WRAPPERS = re.compile(r"(^|(?<=\.))_orig_mod\.|^(module\.|base_model\.model\.)+")
PEFT_PREFIX = "base_model.model."
_INNER = re.compile(r"\.base_layer\.|(?<=\.lora_[AB])\.default\.")
_PART = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])\.weight")


def add_lora(model: Clip, *, r: int = 32, alpha: int = 64) -> PeftModel:
    """Freeze ``model`` and add LoRA to the transformer blocks of its image tower, in place.

    Args:
        r: rank of the update.
        alpha: the update is scaled by ``alpha / r``.

    Returns:
        The PEFT wrapper; ``model`` itself keeps working and now holds the adapters.
    """
    return get_peft_model(model, LoraConfig(r=r, lora_alpha=alpha, target_modules=VISION_TARGETS))


def attach_adapter(model: Clip, folder: Path) -> PeftModel:
    """Load a PEFT adapter folder into ``model``, in place, and return the wrapper.

    Raises:
        BundleError: it is no LoRA adapter, or one of its tensors or of its modules has no partner.
    """
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise BundleError(f"{folder} is no LoRA adapter but {config.peft_type}")
    try:
        wrapped = get_peft_model(model, config)
    except ValueError as exc:  # PEFT names the modules that it did not find
        raise BundleError(f"{folder} does not fit the model: {exc}") from exc
    given = {
        PEFT_PREFIX + plain_name(name): tensor for name, tensor in load_peft_weights(str(folder)).items()
    }
    require_same(given, get_peft_model_state_dict(wrapped), str(folder))
    set_peft_model_state_dict(wrapped, given)
    return wrapped.eval()


def merge_adapter(model: Clip, folder: Path) -> Clip:
    """Load a PEFT adapter folder and fold it into the weights of ``model``; errors as ``attach_adapter``."""
    merged: Clip = attach_adapter(model, folder).merge_and_unload()
    return merged.eval()


def plain_name(name: str) -> str:
    """A tensor's name without what wrappers put around it."""
    return _INNER.sub(".", WRAPPERS.sub("", WRAPPERS.sub("", name)))


def require_same(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors that are missing, unexpected or of another shape.

    Raises:
        BundleError: names the first of them.
    """
    missing, unexpected = sorted(expected.keys() - given), sorted(given.keys() - expected)
    if missing:
        raise BundleError(f"{where} lacks {len(missing)} tensors of its adapter, e.g. {missing[0]}")
    if unexpected:
        raise BundleError(f"{where} has {len(unexpected)} tensors without a module, e.g. {unexpected[0]}")
    for name, tensor in given.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            raise BundleError(f"{where}: {name} has the shape {shapes}")


def merge_tensors(model: Clip, tensors: Mapping[str, Tensor], alpha: int | None, where: str) -> Clip:
    """Fold bare LoRA tensors in, as a ``.pt`` holds them, and return the model.

    Args:
        tensors: ``<module>.lora_A.weight`` and ``<module>.lora_B.weight``, plain names.
        alpha: twice the rank by default, as such files do not carry it.

    Raises:
        BundleError: another kind of LoRA, a tensor without its partner or module, or several ranks.
    """
    modules = _pairs(tensors, where)
    if strangers := sorted(modules - dict(model.named_modules()).keys()):
        raise BundleError(f"{where} adapts {strangers[0]}, which the model does not have")
    ranks = {tensors[f"{module}.lora_A.weight"].shape[0] for module in modules}
    if len(ranks) > 1:
        raise BundleError(
            f"{where} has LoRA of the ranks {sorted(ranks)}: save it with PEFT, which states alpha"
        )
    (rank,) = ranks
    config = LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules=sorted(modules))
    wrapped = get_peft_model(model, config)
    given = {PEFT_PREFIX + name: tensor for name, tensor in tensors.items()}
    require_same(given, get_peft_model_state_dict(wrapped), where)
    set_peft_model_state_dict(wrapped, given)
    return wrapped.merge_and_unload()


def _pairs(names: Iterable[str], where: str) -> set[str]:
    """The adapted modules; each must have both halves, and nothing else."""
    halves: dict[str, set[str]] = {}
    for name in names:
        part = _PART.fullmatch(name)
        if part is None:
            raise BundleError(f"{where} has {name}: only LoRA's two matrices are read, not DoRA or a bias")
        halves.setdefault(part["module"], set()).add(part["half"])
    for module, found in halves.items():
        if lacking := {"A", "B"} - found:
            raise BundleError(f"{where} lacks {module}.lora_{lacking.pop()}.weight")
    return set(halves)

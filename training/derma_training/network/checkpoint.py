"""Load a ``.pt`` checkpoint: a state dict, wrapped or not, with or without LoRA.

model, report = load_checkpoint(model, "model.pt")
report.require("model.pt")
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from derma_training.bundle import BundleError
from derma_training.network.lora import Clip, merge_tensors, plain_name

# Buffers that older transformers versions saved; the model computes them.
HARMLESS = re.compile(r"\.embeddings\.(position_ids|token_type_ids)$")


@dataclass(frozen=True)
class LoadReport:
    """Keys that a checkpoint lacked, and keys that had no place in the model."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    def require(self, where: str | Path) -> None:
        """Refuse a checkpoint that does not fill the model, or holds what has no place in it.

        Raises:
            BundleError: names the first tensor.
        """
        if self.missing:
            raise BundleError(f"{where} lacks {len(self.missing)} tensors, e.g. {self.missing[0]}")
        if self.unexpected:
            first = self.unexpected[0]
            raise BundleError(f"{where} has {len(self.unexpected)} tensors without a place, e.g. {first}")


def load_checkpoint(model: Clip, path: str | Path, *, alpha: int | None = None) -> tuple[Clip, LoadReport]:
    """Load a ``.pt`` as the original project distributed it, LoRA merged where it has any.

    Accepts a ``torch.save`` of a state dict, bare or under ``model_state_dict`` or
    ``state_dict``, with the prefixes of torch.compile, DataParallel and PEFT. Pickled code is
    never run (``weights_only=True``).

    Args:
        alpha: LoRA's alpha, which such files do not carry; twice the rank by default.

    Returns:
        The model with the weights in it, and the keys that did not match.

    Raises:
        ValueError: the file holds no state dict, or more than tensors.
        BundleError: its LoRA tensors do not fit; see ``lora.merge_tensors``.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as exc:
        raise ValueError(f"{path} is not a checkpoint of plain tensors: {exc}") from exc
    state = {plain_name(name): tensor for name, tensor in _state_dict(content, path).items()}
    lora = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    base = {name: tensor for name, tensor in state.items() if name not in lora and not HARMLESS.search(name)}
    missing, unexpected = model.load_state_dict(base, strict=False)
    if lora:
        model = merge_tensors(model, lora, alpha, str(path))
    return model.eval(), LoadReport(tuple(missing), tuple(unexpected))


def _state_dict(content: Any, path: str | Path) -> dict[str, Tensor]:
    for key in ("model_state_dict", "state_dict"):
        if isinstance(content, dict) and key in content:
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise ValueError(f"{path} holds no state dict (a mapping from names to tensors)")
    return content

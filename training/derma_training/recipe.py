"""How ``derma-mini`` is made: every tensor trained here, then sealed with its measurements.

    train_mini(data=ISIC2018, start="vit_tiny_patch16_224.safetensors", out=Path("bundle"))

Phase ``full`` trains both towers from a timm ViT-Tiny; its weights are rounded to fp16
and frozen. Phase ``lora`` trains adapters on top of exactly those rounded weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from derma_training import architecture
from derma_training.bundle import WEIGHTS
from derma_training.classifier import Normalise
from derma_training.data import Parts, labels, load_pixels
from derma_training.fit import Phase, TrainingSet, fit
from derma_training.model import (
    add_lora,
    build_model,
    count_parameters,
    load_tokenizer,
    pixel_statistics,
)

PHASES = (
    Phase("full", epochs=8, learning_rate=1.5e-4, sampling=0.5),
    Phase("lora", epochs=2, learning_rate=5e-4, sampling=0.0),
)


def train_weights(
    parts: Parts, start: Path, folder: Path, checkpoints: Path, *, seed: int, phases: tuple[Phase, Phase] = PHASES
) -> None:
    """Run both phases and leave configuration, vocabulary, weights and adapter in ``folder``."""
    full, lora = phases
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    architecture.write_mini(folder)
    data = TrainingSet(load_pixels(parts.train, label="training images"), labels(parts.train))
    tokenizer = load_tokenizer(folder)
    normalise = Normalise(*pixel_statistics(folder))

    model = build_model(folder, weights=False)
    architecture.load_timm_trunk(model, start)
    print(f"full: {count_parameters(model)}")
    fit(model, tokenizer, data, normalise, full, seed=seed, checkpoints=checkpoints)
    save_weights(model, folder / WEIGHTS)

    torch.manual_seed(seed)  # the adapters' start must not depend on whether `full` was resumed
    model = build_model(folder)
    adapted = add_lora(model)
    print(f"lora: {count_parameters(adapted)}")
    fit(model, tokenizer, data, normalise, lora, seed=seed + 1, checkpoints=checkpoints)
    adapted.half().save_pretrained(str(folder / "adapter"))


def save_weights(model: nn.Module, path: Path) -> None:
    """All tensors in fp16, safetensors format."""
    save_file({name: t.half().contiguous() for name, t in model.state_dict().items()}, str(path))

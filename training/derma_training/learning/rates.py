"""How fast each parameter learns, and when.

optimiser = torch.optim.AdamW(parameter_groups(model, phase))
schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, cosine(phase, steps))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from derma_training.learning.config import ImagePhase, Phase
from derma_training.network.model import Clip


def parameter_groups(model: Clip, phase: Phase) -> list[dict[str, Any]]:
    """Parameters that train, by learning rate and weight decay.

    Vectors, scalars and positions are not decayed. Rates fall by ``layer_decay`` from block to
    block downwards; the projections and the scale take ``head_lr_mult`` times the peak.
    """
    depth = len(model.visual.trunk.blocks)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = _factor(f".{name}", depth, phase) if isinstance(phase, ImagePhase) else 1.0
        rate = phase.learning_rate * factor
        decay = (
            0.0 if parameter.ndim < 2 or "pos_embed" in name or "cls_token" in name else phase.weight_decay
        )
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": ps, "lr": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]


def _factor(name: str, depth: int, phase: ImagePhase) -> float:
    _, inside, rest = name.partition(".trunk.")
    if not inside:
        return phase.head_lr_mult
    if rest.startswith("blocks."):
        level = int(rest.split(".")[1]) + 1
    else:
        level = 0 if rest.startswith(("patch_embed", "pos_embed", "cls_token")) else depth + 1
    return float(phase.layer_decay ** (depth + 1 - level))


def cosine(phase: Phase, total: int) -> Callable[[int], float]:
    """Linear warm-up, then half a cosine down to zero."""
    warmup = max(1, int(phase.warmup * total))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor

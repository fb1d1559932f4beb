"""Sanity checks: a map must depend on the text and on the weights.

    prompt_sensitivity(explainer, pixels, "attention")     # {"mean": 0.3, ...}: rank correlation
    cascade(explainer, pixels, directions, "attention")    # {"head": 0.5, "block 11": 0.1, ...}

A map that hardly changes with another text, or when the weights become random, explains neither.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

from derma_saliency.explainer import Explainer
from derma_semantics.domain.conditions import CODES

Floats = NDArray[np.float32]


def prompt_sensitivity(explainer: Explainer, pixels: Tensor, method: str) -> dict[str, Any]:
    """Spearman's rank correlation of the first condition's map with those of the six others.

    Args:
        pixels: uint8 (N, 224, 224, 3).
    """
    correlations = []
    for image in pixels.split(1):
        answers = explainer.classifier(image)
        directions = torch.stack([explainer.texts.direction(condition=code) for code in CODES])
        grids, _ = explainer.relevance(image.expand(len(CODES), -1, -1, -1), directions, method)
        first = int(answers.probabilities.argmax())
        maps = grids.cpu().numpy()
        correlations += [rank_correlation(maps[first], m) for i, m in enumerate(maps) if i != first]
    values = np.array(correlations)
    return {
        "mean": float(values.mean()),
        "above_0.95": float((values > 0.95).mean()),
        "images": len(pixels),
    }


def cascade(
    explainer: Explainer, pixels: Tensor, directions: Tensor, method: str, *, seed: int = 0
) -> dict[str, float]:
    """Mean rank correlation with the true map as the tower becomes random, from its top downwards.

    Source: Adebayo et al., arXiv 1810.03292, section 4.1.
    """
    true = _maps(explainer, pixels, directions, method)
    torch.manual_seed(seed)
    randomised = copy.copy(explainer)
    randomised.classifier = copy.deepcopy(explainer.classifier)
    found: dict[str, float] = {}
    for name, module in _from_top(randomised.classifier.visual):
        _randomise(module)
        now = _maps(randomised, pixels, directions, method)
        found[name] = float(np.mean([rank_correlation(a, b) for a, b in zip(true, now, strict=True)]))
    return found


def rank_correlation(one: Floats, other: Floats) -> float:
    """Spearman's; 0 where a map is flat, which has no ranks."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one.ravel(), other.ravel()).statistic)


def _from_top(visual: Any) -> Iterator[tuple[str, nn.Module]]:
    yield "head", visual.head
    blocks = visual.trunk.blocks
    for number in reversed(range(len(blocks))):
        yield f"block {number}", blocks[number]
    yield "patches", visual.trunk.patch_embed


def _randomise(module: nn.Module) -> None:
    """As timm begins a ViT's training: normal weights of deviation 0.02, no bias, plain norms."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


def _maps(explainer: Explainer, pixels: Tensor, directions: Tensor, method: str) -> list[Floats]:
    pieces = zip(pixels.split(8), directions.split(8), strict=True)
    grids = [explainer.relevance(p, d, method)[0].cpu().numpy() for p, d in pieces]
    return list(np.concatenate(grids))

"""The input check as a part of the network: pixels and embedding to reasons.

    check = QualityCheck(bundle.quality)
    check(pixels, embedding)                # bool (B, 4), in the order of quality.REASONS

A bundle without limits notices nothing. A measure that is not a number is noticed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from derma_semantics.domain.quality import REASONS
from derma_training.bundle.limits import MEASURES, Cloud, Quality
from derma_training.network import pixels as measured

# For each reason, the places of its measures.
PLACES = [[i for i, code in enumerate(MEASURES.values()) if code == reason.code] for reason in REASONS]


class Distance(nn.Module):
    """The mean square of a vector's coordinates, once those of the training images are uncorrelated."""

    mean: Tensor
    whiten: Tensor

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self.register_buffer("mean", cloud.mean)
        self.register_buffer("whiten", cloud.whiten)

    def forward(self, vectors: Tensor) -> Tensor:
        # A product of matrices by its sums: engines may compute products in lower precision.
        apart = ((vectors - self.mean).unsqueeze(2) * self.whiten).sum(dim=1)
        return apart.square().mean(dim=1)


class Measures(nn.Module):
    """Everything that has a limit, fp32 (B, len(MEASURES)); the larger, the worse."""

    def __init__(self, clouds: dict[str, Cloud]) -> None:
        super().__init__()
        self.embedding = Distance(clouds["embedding"])
        self.appearance = Distance(clouds["appearance"])

    def forward(self, pixels: Tensor, embedding: Tensor) -> Tensor:
        colours = measured.planes(pixels)
        values = {
            "softness": measured.softness(colours),
            "darkness": measured.darkness(colours),
            "brightness": measured.brightness(colours),
            "glare": measured.glare(colours),
            "emptiness": measured.emptiness(colours),
            "embedding": self.embedding(embedding),
            "appearance": self.appearance(measured.appearance(colours)),
        }
        return torch.stack([values[name] for name in MEASURES], dim=1)


class QualityCheck(nn.Module):
    """Which reasons a picture gives, bool (B, len(REASONS))."""

    limits: Tensor
    nothing: Tensor

    def __init__(self, quality: Quality | None) -> None:
        super().__init__()
        self.measures = Measures(quality.clouds) if quality else None
        limits = [quality.limits[name] for name in MEASURES] if quality else []
        self.register_buffer("limits", torch.tensor(limits))
        self.register_buffer("nothing", torch.zeros(1, len(REASONS), dtype=torch.bool))

    def forward(self, pixels: Tensor, embedding: Tensor) -> Tensor:
        if self.measures is None:
            return self.nothing.expand(pixels.shape[0], -1)
        within = self.measures(pixels, embedding) <= self.limits
        # Not a number is not within a limit either.
        noticed = within.logical_not().split(1, dim=1)
        return torch.cat([_any([noticed[i] for i in places]) for places in PLACES], dim=1)


def _any(columns: list[Tensor]) -> Tensor:
    """Whether any holds, bool (B, 1)."""
    return torch.cat(columns, dim=1).float().sum(dim=1, keepdim=True) > 0

"""Networks that have trained already, and what they say together of an image.

    teachers = Teachers()
    teachers.add(model, texts)                 # as it is now; it may train on
    answers = teachers(images)                 # logits, (B, 7)

Each sees the very images that the learner sees: cropped, coloured and blended alike.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from derma_training.learning.definitions import Definitions
from derma_training.network.model import Clip


class Teachers:
    """No ``nn.Module``, so that nobody trains, moves or averages them with the network that learns."""

    def __init__(self) -> None:
        self._members: list[tuple[nn.Module, Tensor]] = []

    def __len__(self) -> int:
        return len(self._members)

    @torch.no_grad()
    def add(self, model: Clip, texts: Definitions) -> None:
        """Take a copy of the image tower and of what it compares with."""
        tower = copy.deepcopy(model.visual).requires_grad_(False).eval()
        self._members.append((tower, model.logit_scale.exp() * texts.conditions(model)))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Mean logits of the conditions, fp32 (B, C), for normalised images (B, 3, H, W)."""
        seen = [F.normalize(tower(images).float(), dim=-1) for tower, _ in self._members]
        with torch.autocast(images.device.type, enabled=False):
            given = [image @ conditions.T for image, (_, conditions) in zip(seen, self._members)]
            return torch.stack(given).mean(dim=0)

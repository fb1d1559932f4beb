"""Random changes to training images, a whole batch at once, on the device it is on.

    changes = draw(settings, 64, generator)               # one row an image
    pixels = changes.apply(pixels)                        # uint8 (B, 224, 224, 3), changed
    images, target = blend(images, labels, alpha=0.2, seed=7)         # mixup, of normalised images

Crop, turn and mirror are one affine resampling, so that every image is interpolated once; what lies
outside the photograph is its reflection. Then light, as torchvision's ColorJitter with a factor for each
channel besides: brightness, contrast, saturation, in this order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from derma_semantics.domain.conditions import CONDITIONS
from derma_training.learning.config import Augmentation

# Of a crop's width to its height.
RATIO = 1.25
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Changes:
    """What happens to each of B images.

    Attributes:
        place: from output to input coordinates in [-1, 1], shape (B, 2, 3).
        gain: factor on each channel, shape (B, 3).
        contrast, saturation: 1 changes nothing, 0 leaves the mean grey, or greys; shape (B,).
    """

    place: Tensor
    gain: Tensor
    contrast: Tensor
    saturation: Tensor

    def __getitem__(self, rows: slice) -> Changes:
        return Changes(*(values[rows] for values in vars(self).values()))

    def apply(self, pixels: Tensor) -> Tensor:
        """Change uint8 images of shape (B, H, W, 3)."""
        place, gain, contrast, saturation = (v.to(pixels.device) for v in vars(self).values())
        images = pixels.permute(0, 3, 1, 2).float()
        grid = F.affine_grid(place, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
        images.mul_(gain[:, :, None, None]).clamp_(0, 255)
        _move(images, _grey(images).mean(dim=(2, 3), keepdim=True), contrast)
        _move(images, _grey(images), saturation)
        return images.round_().to(torch.uint8).permute(0, 2, 3, 1)


def draw(settings: Augmentation, count: int, generator: torch.Generator) -> Changes:
    """Changes to ``count`` images, which depend on the generator alone."""

    def uniform(*more: int) -> Tensor:
        return torch.rand(count, *more, generator=generator) * 2 - 1

    crop, jitter = torch.tensor(settings.crop), torch.tensor(settings.color_jitter)
    area = crop + (1 - crop) * (uniform() + 1) / 2
    ratio = (RATIO ** uniform()).clamp(min=area, max=1 / area)  # no side is longer than the photograph's
    width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
    quarters = torch.randint(4, (count,), generator=generator)
    angle = math.pi / 2 * quarters * float(settings.flips)
    angle = angle + torch.deg2rad(torch.tensor(settings.rotation)) * uniform()
    mirror = torch.where((uniform() < 0) & settings.flips, -1.0, 1.0)
    across = torch.stack(
        [width * angle.cos() * mirror, -width * angle.sin(), (1 - width) * uniform()], dim=-1
    )
    down = torch.stack(
        [height * angle.sin() * mirror, height * angle.cos(), (1 - height) * uniform()], dim=-1
    )
    brightness, contrast, saturation = (1 + jitter * uniform() for _ in range(3))
    light = brightness[:, None] * (1 + settings.channel_gain * uniform(3))
    return Changes(torch.stack([across, down], dim=1), light, contrast, saturation)


def blend(images: Tensor, labels: Tensor, alpha: float, seed: int) -> tuple[Tensor, Tensor]:
    """Mixup: each image with another of the batch, by a share of its own.

    Args:
        images: float (B, 3, H, W).
        labels: condition indices, shape (B,).
        alpha: of the Beta distribution of the shares; 0 changes nothing.

    Returns:
        Images, and what they show: mixtures of conditions, shape (B, C), or ``labels`` as they are.

    Source: Zhang et al., arXiv 1710.09412.
    """
    if not alpha:
        return images, labels
    random = np.random.default_rng(seed)
    order = torch.from_numpy(random.permutation(len(labels))).to(labels.device)
    share = torch.from_numpy(random.beta(alpha, alpha, len(labels))).to(images)
    target = F.one_hot(labels, len(CONDITIONS)).to(images)
    return (
        torch.lerp(images[order], images, share[:, None, None, None]),
        torch.lerp(target[order], target, share[:, None]),
    )


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, dim=1)
    grey: Tensor = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    return grey


def _move(images: Tensor, grey: Tensor, strength: Tensor) -> None:
    """Towards ``grey`` where ``strength`` is below 1, away from it where it is above, in place."""
    images.sub_(grey).mul_(strength.view(-1, 1, 1, 1)).add_(grey).clamp_(0, 255)

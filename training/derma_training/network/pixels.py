"""What the input check measures of the pixels themselves, in operators that every engine has.

    colours = planes(pixels)                        # (B, 3, 224, 224), in [0, 1]
    softness(colours), darkness(colours)            # (B,) each: the larger, the worse
    appearance(colours)                             # (B, APPEARANCE): how the picture looks

Sums of slices instead of convolutions and products of matrices: engines may compute those in
lower precision, and a limit must not depend on that.
"""

from __future__ import annotations

import torch
from torch import Tensor

from derma_semantics.domain.contract import IMAGE_SIZE

LUMINANCE = (0.299, 0.587, 0.114)
SCALES = 5
GRID = 7
# Darker than this is a dermatoscope's tube or a black border, brighter than that a glare.
BLACK, WHITE = 0.15, 0.96
# Cells of the picture that decides how large a lesion is: 28 x 28.
CELL = 8
# Skin is what is lit in a ring along the border, this many cells wide.
RING = 3
# A cell belongs to the lesion if it differs from the skin by this share of the largest difference.
SPLIT = 0.4
# Numbers that ``appearance`` gives.
APPEARANCE = 3 * GRID**2 + 12 * SCALES + 12


def planes(pixels: Tensor) -> Tensor:
    """uint8 (B, 224, 224, 3) as fp32 (B, 3, 224, 224), in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def softness(colours: Tensor) -> Tensor:
    """How much less the finest detail varies than detail four times as large; contrast cancels out."""
    light = luminance(colours)
    return _variation(pooled(light, 4)).log() - _variation(light).log()


def darkness(colours: Tensor) -> Tensor:
    """1 less the mean luminance of the picture's centre."""
    return 1 - _centre(luminance(colours)).mean(dim=(1, 2, 3))


def brightness(colours: Tensor) -> Tensor:
    """The mean luminance of the picture's centre."""
    return _centre(luminance(colours)).mean(dim=(1, 2, 3))


def glare(colours: Tensor) -> Tensor:
    """The share of the centre that is almost white."""
    return (_centre(luminance(colours)) > WHITE).float().mean(dim=(1, 2, 3))


def emptiness(colours: Tensor) -> Tensor:
    """1 less the share of the picture that is as unlike the skin around it as a lesion is."""
    cells = pooled(colours, CELL)
    lit = (luminance(cells) > BLACK).float()
    skin = _along_border(lit * cells) / (_along_border(lit) + 1e-3)
    unlike = lit * (cells - skin).square().sum(dim=1, keepdim=True).sqrt()
    largest = unlike.amax(dim=(2, 3), keepdim=True)
    return 1 - (unlike > SPLIT * largest).float().mean(dim=(1, 2, 3))


def appearance(colours: Tensor) -> Tensor:
    """Colours by place, how neighbours differ at each scale, and the spread of colours; (B, APPEARANCE)."""
    found = [pooled(colours, IMAGE_SIZE // GRID).flatten(1)]
    scale = colours
    for _ in range(SCALES):
        across, down = _steps(scale)
        found += [(step.square().mean(dim=(2, 3)) + 1e-6).log() for step in (across, down)]
        found += [(step.abs().mean(dim=(2, 3)) + 1e-3).log() for step in (across, down)]
        scale = pooled(scale, 2)
    red, green, blue = colours.split(1, dim=1)
    for part in (colours.mean(dim=1, keepdim=True), red - green, green - blue):
        found += _spread(part.flatten(1))
    return torch.cat(found, dim=1)


def luminance(colours: Tensor) -> Tensor:
    """(B, 1, H, W)."""
    red, green, blue = (share * part for share, part in zip(LUMINANCE, colours.split(1, dim=1), strict=True))
    light: Tensor = red + green + blue
    return light


def pooled(planes: Tensor, factor: int) -> Tensor:
    """Means of squares of ``factor`` pixels a side."""
    narrower: Tensor = planes.unflatten(3, (-1, factor)).mean(dim=4)
    smaller: Tensor = narrower.unflatten(2, (-1, factor)).mean(dim=3)
    return smaller


def _steps(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours, across and down."""
    return planes[:, :, :, 1:] - planes[:, :, :, :-1], planes[:, :, 1:] - planes[:, :, :-1]


def _variation(light: Tensor) -> Tensor:
    across, down = _steps(light)
    return across.abs().mean(dim=(1, 2, 3)) + down.abs().mean(dim=(1, 2, 3)) + 1e-3


def _centre(light: Tensor) -> Tensor:
    """The middle half of both sides, which no dermatoscope's tube darkens."""
    edge = IMAGE_SIZE // 4
    return light[:, :, edge:-edge, edge:-edge]


def _along_border(cells: Tensor) -> Tensor:
    """Sums over a ring of cells, ``RING`` wide; (B, C, 1, 1)."""
    inside = cells[:, :, RING:-RING, RING:-RING]
    return cells.sum(dim=(2, 3), keepdim=True) - inside.sum(dim=(2, 3), keepdim=True)


def _spread(values: Tensor) -> list[Tensor]:
    """Mean, logarithm of the variance, least and largest; (B, 1) each."""
    mean = values.mean(dim=1, keepdim=True)
    variance = (values - mean).square().mean(dim=1, keepdim=True)
    return [mean, (variance + 1e-5).log(), values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)]

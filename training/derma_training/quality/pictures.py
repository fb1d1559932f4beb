"""Pictures that an input check should notice: drawn ones of no skin, and damaged photographs of lesions.

    noise("clouds", 30, seed=1)              # uint8 (30, 224, 224, 3)
    DAMAGES["blur, sigma 4"](pixels)         # the same photographs, blurred

The same seed gives the same pictures.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from derma_semantics.domain.contract import IMAGE_SIZE

SIZE = (IMAGE_SIZE, IMAGE_SIZE)
WORDS = ("the", "and", "of", "skin", "result", "page", "table", "value", "patient", "date", "name", "total")

Draw = Callable[[np.random.Generator], NDArray[np.uint8]]
Damage = Callable[[Tensor], Tensor]


def noise(kind: str, count: int, seed: int) -> Tensor:
    """Pictures of one of the ``KINDS``, uint8 (count, 224, 224, 3)."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return torch.from_numpy(np.stack([KINDS[kind](rng) for _ in range(count)]))


def _uniform(rng: np.random.Generator) -> NDArray[np.uint8]:
    channels = int(rng.choice([1, 3]))
    return np.broadcast_to(rng.integers(0, 256, (*SIZE, channels), np.uint8), (*SIZE, 3)).copy()


def _gaussian(rng: np.random.Generator) -> NDArray[np.uint8]:
    return _bytes(rng.normal(_colour(rng), rng.uniform(15, 90), (*SIZE, 3)))


def _clouds(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Noise whose power falls with frequency, as in clouds and plasma."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE[0]), np.fft.fftfreq(SIZE[1])))
    frequency[0, 0] = np.inf
    spectrum = rng.normal(size=(3, *SIZE)) + 1j * rng.normal(size=(3, *SIZE))
    waves = np.fft.ifft2(spectrum / frequency ** rng.uniform(0.7, 2)).real
    waves /= waves.std(axis=(1, 2), keepdims=True)
    return _bytes(_colour(rng) + rng.uniform(20, 70) * waves.transpose(1, 2, 0))


def _flat(rng: np.random.Generator) -> NDArray[np.uint8]:
    return _bytes(np.broadcast_to(_colour(rng), (*SIZE, 3)))


def _gradient(rng: np.random.Generator) -> NDArray[np.uint8]:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-0.5 : 0.5 : SIZE[1] * 1j, -0.5 : 0.5 : SIZE[0] * 1j]
    along = (0.5 + (np.cos(angle) * x + np.sin(angle) * y) / 1.5)[..., None]
    return _bytes(_colour(rng) * along + _colour(rng) * (1 - along))


def _page(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lines of words, dark on light or light on dark."""
    ink = (20, 20, 20) if rng.random() < 0.7 else (230, 230, 230)
    paper = (245, 245, 240) if ink[0] < 128 else (25, 30, 40)
    image = Image.new("RGB", SIZE, paper)
    pen = ImageDraw.Draw(image)
    step = int(rng.integers(11, 24))
    for y in range(int(rng.integers(2, 20)), SIZE[1], step):
        words = rng.choice(WORDS, int(rng.integers(2, 9)))
        pen.text((int(rng.integers(4, 24)), y), " ".join(words), fill=ink, font_size=0.75 * step)
    return np.asarray(image)


def _drawing(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Outlines and plain shapes on paper."""
    image = Image.new("RGB", SIZE, tuple(int(v) for v in rng.integers(200, 256, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 20))):
        x, y = np.sort(rng.integers(0, IMAGE_SIZE, (2, 2)), axis=1).tolist()
        colour = tuple(int(v) for v in _colour(rng))
        shape = pen.rectangle if rng.random() < 0.5 else pen.ellipse
        shape((x[0], y[0], x[1] + 1, y[1] + 1), outline=colour, width=int(rng.integers(1, 5)))
        pen.line([tuple(p) for p in rng.integers(0, IMAGE_SIZE, (3, 2)).tolist()], fill=colour, width=2)
    return np.asarray(image)


def _board(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Squares of two colours."""
    side = int(rng.integers(4, 57))
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]] // side
    odd = ((x + y) % 2)[..., None]
    return _bytes(odd * _colour(rng) + (1 - odd) * _colour(rng))


KINDS: dict[str, Draw] = {
    "uniform noise": _uniform,
    "Gaussian noise": _gaussian,
    "clouds": _clouds,
    "one colour": _flat,
    "gradient": _gradient,
    "page of text": _page,
    "line drawing": _drawing,
    "checkerboard": _board,
}


def _each(change: Callable[[Image.Image], Image.Image]) -> Damage:
    def damage(pixels: Tensor) -> Tensor:
        changed = [np.asarray(change(Image.fromarray(image.numpy()))) for image in pixels]
        return torch.from_numpy(np.stack(changed))

    return damage


def _blurred(sigma: float) -> Damage:
    return _each(lambda image: image.filter(ImageFilter.GaussianBlur(sigma)))


def _moved(length: int) -> Damage:
    """A camera that moves sideways by ``length`` pixels."""

    def change(image: Image.Image) -> Image.Image:
        values = np.pad(np.asarray(image).astype(float), ((0, 0), (length, length), (0, 0)), "edge")
        sums = np.cumsum(values, axis=1)
        means = (sums[:, length:] - sums[:, :-length]) / length
        return Image.fromarray(_bytes(means[:, :IMAGE_SIZE]))

    return _each(change)


def _exposed(factor: float) -> Damage:
    """Light times ``factor``, clipped as a sensor clips it."""
    return lambda pixels: (pixels.float() * factor).round().clamp(0, 255).to(torch.uint8)


def _shrunk(factor: int) -> Damage:
    """The photograph from further away: smaller, in skin of the mean colour of its border."""

    def change(image: Image.Image) -> Image.Image:
        values = np.asarray(image).astype(float)
        border = np.concatenate([values[:12].reshape(-1, 3), values[-12:].reshape(-1, 3)])
        lit = border[border.sum(axis=1) >= np.median(border.sum(axis=1))]
        skin = np.median(lit, axis=0)
        texture = np.random.default_rng(0).normal(0, 4, (*SIZE, 1))
        wide = Image.fromarray(_bytes(skin + texture + np.zeros((*SIZE, 3))))
        side, start = IMAGE_SIZE // factor, (IMAGE_SIZE - IMAGE_SIZE // factor) // 2
        small = image.resize((side, side), Image.Resampling.BICUBIC)
        mask = Image.new("L", (side, side), 0)
        ImageDraw.Draw(mask).ellipse((side // 12, side // 12, side - side // 12, side - side // 12), fill=255)
        wide.paste(small, (start, start), mask.filter(ImageFilter.GaussianBlur(side / 16)))
        return wide

    return _each(change)


DAMAGES: dict[str, Damage] = {
    "blur, sigma 1": _blurred(1),
    "blur, sigma 2": _blurred(2),
    "blur, sigma 4": _blurred(4),
    "blur, sigma 8": _blurred(8),
    "moved by 9 pixels": _moved(9),
    "moved by 21 pixels": _moved(21),
    "light times 0.1": _exposed(0.1),
    "light times 0.25": _exposed(0.25),
    "light times 1.5": _exposed(1.5),
    "light times 2": _exposed(2),
    "shrunk to 1/4": _shrunk(4),
    "shrunk to 1/8": _shrunk(8),
}


def _colour(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform(0, 255, 3)


def _bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return values.round().clip(0, 255).astype(np.uint8)

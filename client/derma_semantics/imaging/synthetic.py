"""Seeded pictures that look like dermoscopy, for demos and tests. They show no disease.

    picture = draw(seed=1)
    picture.image.save("synthetic-0001.jpg"); picture.mask     # lesion: 255, skin: 0

Every picture has skin texture, a lesion with an irregular border and blotches of
colour, a vignette, and by chance a pigment network, globules, vessels and hair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float64]

SKIN = ((236, 196, 172), (222, 170, 144), (206, 158, 138), (232, 180, 168))
PIGMENT = ((120, 76, 52), (82, 50, 40), (52, 36, 36), (150, 98, 66), (92, 96, 118), (176, 84, 80))


@dataclass(frozen=True)
class Picture:
    """A picture (mode RGB) and its lesion's mask (mode L), of one size."""

    image: Image.Image
    mask: Image.Image


def draw(seed: int, size: tuple[int, int] = (600, 450)) -> Picture:
    """One picture; the same seed gives the same picture.

    Args:
        size: width and height in pixels.
    """
    rng = np.random.default_rng(seed)
    inside = _lesion(rng, size)
    canvas = _skin(rng, size)
    pigment = _pigment(rng, size)
    if rng.random() < 0.6:
        pigment *= 1 - 0.35 * _network(rng, size)[..., None]
    canvas += inside[..., None] * (pigment - canvas)
    image = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    mask = Image.fromarray(((inside > 0.5) * 255).astype(np.uint8))
    _globules(rng, image, mask)
    _vessels(rng, image, mask)
    _hair(rng, image)
    image = image.filter(ImageFilter.GaussianBlur(0.6))
    return Picture(_vignette(rng, image), mask)


def _polar(size: tuple[int, int], centre: tuple[float, float]) -> tuple[Array, Array]:
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    dx, dy = x - centre[0] * width, y - centre[1] * height
    return np.hypot(dx, dy), np.arctan2(dy, dx)


def _clouds(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Array:
    """Smooth noise of mean 0 and deviation about 1, with features of 1/cells of the width."""
    grid = rng.normal(size=(max(2, cells * size[1] // size[0]), cells)).astype(np.float32)
    smooth = Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)
    return np.array(smooth).astype(np.float64)


def _lesion(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """How much of each pixel belongs to the lesion, in [0, 1]."""
    radius, angle = _polar(size, (rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6)))
    border = np.ones_like(angle)
    roughness = rng.uniform(0.02, 0.16)
    for wave in range(2, 9):
        border += roughness / (wave - 1) ** 0.8 * rng.normal() * np.cos(wave * angle + rng.uniform(0, 6.3))
    border += 0.03 * _clouds(rng, size, 24)
    extent = rng.uniform(0.18, 0.36) * min(size) * border
    softness = rng.uniform(2, 14)
    inside: Array = 1 / (1 + np.exp(((radius - extent) / softness).clip(-50, 50)))
    return inside


def _skin(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    tone = np.array(SKIN[rng.integers(len(SKIN))], dtype=np.float64)
    texture = 5 * _clouds(rng, size, 6) + 3 * _clouds(rng, size, 40) + 3 * _clouds(rng, size, 150)
    skin: Array = tone + texture[..., None] * np.array([0.8, 1.0, 1.0])
    return skin


def _pigment(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """One to four colours in blotches."""
    colours = rng.permutation(np.array(PIGMENT, dtype=np.float64))[: rng.integers(1, 5)]
    canvas: Array = np.broadcast_to(colours[0], (size[1], size[0], 3)).copy()
    for colour in colours[1:]:
        share = 1 / (1 + np.exp(-6 * (_clouds(rng, size, 5) - 0.4)))
        canvas += share[..., None] * (colour - canvas)
    canvas += 6 * _clouds(rng, size, 60)[..., None]
    return canvas


def _network(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """A honeycomb of lines, in [0, 1], bent so that it looks grown."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float64)
    pitch = rng.uniform(9, 16)
    x, y = x + 3 * _clouds(rng, size, 16), y + 3 * _clouds(rng, size, 16)
    waves = [np.cos(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) / pitch) for a in np.deg2rad([0, 60, 120])]
    # Three crossed waves peak at the holes of a honeycomb; its lines are where their sum is low.
    lines: Array = np.clip((0.3 - np.sum(waves, axis=0)) / 1.8, 0, 1)
    return lines


def _inside_points(rng: np.random.Generator, mask: Image.Image, count: int) -> list[tuple[int, int]]:
    rows, columns = np.nonzero(np.asarray(mask))
    chosen = rng.integers(max(1, len(rows)), size=min(count, len(rows)))
    return [(int(columns[i]), int(rows[i])) for i in chosen]


def _globules(rng: np.random.Generator, image: Image.Image, mask: Image.Image) -> None:
    pen = ImageDraw.Draw(image, "RGBA")
    for x, y in _inside_points(rng, mask, int(rng.integers(0, 60))):
        radius = rng.uniform(1.5, 5)
        pen.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=(40, 24, 22, int(rng.integers(60, 170)))
        )


def _vessels(rng: np.random.Generator, image: Image.Image, mask: Image.Image) -> None:
    pen = ImageDraw.Draw(image, "RGBA")
    for start in _inside_points(rng, mask, int(rng.integers(0, 9))):
        heading = rng.uniform(0, 6.3) + np.cumsum(rng.normal(0, 0.35, size=18))
        steps = 5 * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        path = np.array(start) + np.cumsum(steps, axis=0)
        pen.line([tuple(p) for p in path.tolist()], fill=(186, 40, 52, 130), width=int(rng.integers(1, 4)))


def _hair(rng: np.random.Generator, image: Image.Image) -> None:
    pen = ImageDraw.Draw(image, "RGBA")
    t = np.linspace(0, 1, 40)[:, None]
    for _ in range(rng.integers(0, 10)):
        a, b, c = rng.uniform(-0.1, 1.1, size=(3, 2)) * image.size
        curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c
        pen.line([tuple(p) for p in curve.tolist()], fill=(44, 30, 24, 210), width=int(rng.integers(1, 4)))


def _vignette(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Darken the corners, as a dermatoscope's tube does."""
    radius, _ = _polar(image.size, (0.5, 0.5))
    edge = rng.uniform(0.52, 0.75) * max(image.size)
    light = 1 / (1 + np.exp(((radius - edge) / 12).clip(-50, 50)))
    return Image.fromarray((np.asarray(image) * light[..., None]).astype(np.uint8))

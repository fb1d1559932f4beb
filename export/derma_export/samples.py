"""Images that a gate compares on.

samples = synthetic_samples()                      # drawn pictures, where no photographs are at hand
samples = folder_samples(Path("photographs"))
samples = labelled_samples(parts)                  # with labels: what was held out for choosing
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derma_semantics.domain.errors import InvalidImage
from derma_semantics.domain.regular import read_regular
from derma_semantics.imaging.folders import images_in
from derma_semantics.imaging.preprocess import preprocess, resize_and_crop
from derma_semantics.imaging.synthetic import draw
from derma_training.data import Parts, labels, load_pixels

SYNTHETIC_IMAGES = 32
CALIBRATION_IMAGES = 128


@dataclass(frozen=True)
class Samples:
    """Gate images: uint8 (N, 224, 224, 3), a name each, what they are, and their conditions if known.

    Attributes:
        labels: condition indices, int64 (N,).
    """

    pixels: Tensor
    names: tuple[str, ...]
    source: str
    labels: Tensor | None = None


def synthetic_samples(count: int = SYNTHETIC_IMAGES) -> Samples:
    """Drawn pictures, for gates where no photographs are at hand."""
    pixels = np.stack([resize_and_crop(draw(seed, (300, 225)).image) for seed in range(count)])
    return Samples(torch.from_numpy(pixels), tuple(f"synthetic {n}" for n in range(count)), "synthetic")


def folder_samples(folder: Path, most: int = 256) -> Samples:
    """Photographs of a folder, spread evenly over its file names.

    Raises:
        ValueError: it holds no two images, so none can show whether it changes the other's answer.
    """
    paths = images_in(folder, least=2)
    chosen = paths[:: -(-len(paths) // most)]
    pixels = np.stack([_pixels(path) for path in chosen])
    return Samples(torch.from_numpy(pixels), tuple(path.name for path in chosen), folder.name)


def labelled_samples(parts: Parts) -> Samples:
    """The validation and calibration parts: a gate chooses between graphs, so the test part stays out.

    Raises:
        ValueError: the data holds none of the images that the bundle held out for this.
    """
    held_out = [*parts.validation, *parts.calibration]
    if not held_out:
        raise ValueError("the data holds none of the bundle's validation or calibration images")
    pixels = load_pixels(held_out, label="gate images")
    return Samples(pixels, tuple(e.name for e in held_out), "validation and calibration", labels(held_out))


def calibration_pixels(parts: Parts, most: int = CALIBRATION_IMAGES) -> Tensor:
    """Training images that int8 ranges are measured on, spread evenly; uint8 (N, 224, 224, 3)."""
    chosen = parts.train[:: -(-len(parts.train) // most)]
    return load_pixels(chosen, label="images to quantise with")


def _pixels(path: Path) -> NDArray[np.uint8]:
    try:
        return preprocess(read_regular(path))
    except InvalidImage as exc:
        raise ValueError(f"{path}: {exc}") from exc

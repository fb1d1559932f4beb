"""Measures of one map, against its lesion's mask and against the network.

    energy(map, mask), pointing(map, mask)          # map: (224, 224), mask: bool
    deletion, insertion = perturbed(classifier, pixels, grid, condition)

Rivals that know nothing: ``random_grid`` and ``gaussian_grid``, a centred Gaussian whose deviation
is a quarter of the side; lesions are photographed in the centre.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from derma_semantics.domain.contract import IMAGE_SIZE
from derma_training.network.classifier import Classifier

Floats = NDArray[np.float32]

STEPS = 7
# Small batches stay in the processor's cache.
BATCH = 4
# Insertion begins with the photograph out of focus: standard deviation in pixels.
BLUR = 12.0
GAUSSIAN = 0.25


def gaussian_grid(shape: tuple[int, int]) -> Floats:
    """A centred bump, standard deviation a quarter of each side, highest value 1."""
    rows, columns = (((np.arange(n) + 0.5) / n - 0.5) / GAUSSIAN for n in shape)
    bump = np.exp(-0.5 * (rows[:, None] ** 2 + columns[None, :] ** 2)).astype(np.float32)
    return np.asarray(bump / bump.max(), dtype=np.float32)


def random_grid(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    return rng.random(shape, dtype=np.float32)


def enlarged(grid: Floats) -> Floats:
    """The grid at the network's pixels, fp32 (224, 224), as ``Explanation.map`` enlarges it."""
    image = Image.fromarray(grid).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    return np.asarray(image)


def energy(relevance: Floats, mask: NDArray[np.bool_]) -> float:
    """Share of the relevance that lies on the lesion, in [0, 1]. Source: arXiv 1910.01279."""
    total = float(relevance.sum())
    return float(relevance[mask].sum()) / total if total else 0.0


def pointing(relevance: Floats, mask: NDArray[np.bool_]) -> float:
    """1 where the most relevant pixel lies on the lesion, else 0. Source: arXiv 1608.00507."""
    return float(mask.flat[relevance.argmax()])


@torch.inference_mode()
def perturbed(
    classifier: Classifier, pixels: NDArray[np.uint8], grid: Floats, condition: int
) -> tuple[float, float]:
    """Areas under the condition's probability while patches go (deletion) or come (insertion).

    The most relevant patches first, in 7 equal steps. What is deleted becomes the photograph's
    mean colour; insertion reveals a blurred photograph. A good map has a low deletion and a high
    insertion. Source: Petsiuk et al., RISE, arXiv 1806.07421.
    """
    shown = _revealed(grid)
    mean = np.broadcast_to(pixels.mean(axis=(0, 1)).round().astype(np.uint8), pixels.shape)
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(BLUR)))
    frames = [np.where(hole[..., None], mean, pixels) for hole in shown]
    frames += [np.where(seen[..., None], pixels, blurred) for seen in shown]
    batches = torch.from_numpy(np.stack(frames)).to(classifier.text.device).split(BATCH)
    probabilities = torch.cat([classifier(batch).probabilities[:, condition] for batch in batches])
    deletion, insertion = probabilities.cpu().double().numpy().reshape(2, STEPS + 1)
    return _area(deletion), _area(insertion)


def _revealed(grid: Floats) -> list[NDArray[np.bool_]]:
    """After 0 to 7 steps: the pixels of the most relevant patches."""
    order = np.argsort(-grid, axis=None, kind="stable")
    rank = np.empty(grid.size, dtype=int)
    rank[order] = np.arange(grid.size)
    patches = [(rank < grid.size * step / STEPS).reshape(grid.shape) for step in range(STEPS + 1)]
    cell = np.ones((IMAGE_SIZE // grid.shape[0], IMAGE_SIZE // grid.shape[1]), dtype=bool)
    return [np.kron(one, cell).astype(bool) for one in patches]


def _area(curve: NDArray[np.float64]) -> float:
    return float(np.trapezoid(curve, dx=1 / STEPS))

"""What a graph must show before it may be written to a model repository.

    report = compare(classifier(pixels), candidate(pixels), LIMITS["fp32"])
    report.require(names)     # raises GateFailed, naming the worst images

Limits stand in one table, by precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from derma_semantics.contract import IMAGE_SUFFIXES
from derma_semantics.errors import InvalidImage
from derma_semantics.preprocess import preprocess, resize_and_crop
from derma_semantics.synthetic import draw
from derma_training.bundle import Bundle
from derma_training.classifier import Answers
from derma_training.model import load_merged, load_unmerged

MERGE_LIMIT = 1e-5
SYNTHETIC_IMAGES = 32


class GateFailed(RuntimeError):
    """The candidate differs from the reference by more than its limits allow."""


@dataclass(frozen=True)
class Limits:
    """What a precision may lose."""

    probability: float
    embedding: float


LIMITS = {"fp32": Limits(probability=1e-4, embedding=1e-4)}


@dataclass(frozen=True)
class Samples:
    """Gate images: uint8 (N, 224, 224, 3), a name each, and what they are."""

    pixels: Tensor
    names: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Report:
    """How far a candidate strays from the reference.

    Attributes:
        max_probability_difference: absolute, over all images; of PROBABILITIES and RISK.
        max_embedding_difference: absolute, over all images.
        top1_disagreements: images whose most probable condition changed.
        triage_disagreements: images whose triage changed.
        set_disagreements: images whose prediction set changed.
        worst: index of the image with the largest probability difference.
    """

    images: int
    max_probability_difference: float
    max_embedding_difference: float
    top1_disagreements: tuple[int, ...]
    triage_disagreements: tuple[int, ...]
    set_disagreements: tuple[int, ...]
    worst: int
    limits: Limits

    @property
    def failures(self) -> list[str]:
        """A sentence for each limit that does not hold; not-a-number holds none."""
        found = []
        for what, value, limit in (
            ("probabilities", self.max_probability_difference, self.limits.probability),
            ("embeddings", self.max_embedding_difference, self.limits.embedding),
        ):
            if not value <= limit:
                found.append(f"{what} differ by {value:.2e}, limit {limit:.0e}")
        for what, changed in self._disagreements.items():
            if changed:
                found.append(f"{what} changed on {len(changed)} of {self.images} images")
        return found

    @property
    def _disagreements(self) -> dict[str, tuple[int, ...]]:
        return {
            "top-1": self.top1_disagreements,
            "triage": self.triage_disagreements,
            "prediction set": self.set_disagreements,
        }

    def require(self, names: Sequence[str]) -> None:
        """Raise GateFailed, naming the images, unless every limit holds."""
        if not self.failures:
            return
        images = {self.worst, *(i for changed in self._disagreements.values() for i in changed[:5])}
        listed = ", ".join(names[i] for i in sorted(images))
        raise GateFailed(f"{'; '.join(self.failures)} (worst images: {listed})")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(reference: Answers, candidate: Answers, limits: Limits) -> Report:
    """Measure ``candidate`` against ``reference``, answers to the same images."""
    scores = [torch.cat([a.probabilities, a.risk], dim=-1) for a in (reference, candidate)]
    difference = (scores[0] - scores[1]).abs().amax(dim=-1)
    top1 = reference.probabilities.argmax(dim=-1) != candidate.probabilities.argmax(dim=-1)
    triage = (reference.triage != candidate.triage).squeeze(-1)
    sets = (reference.prediction_set != candidate.prediction_set).any(dim=-1)
    return Report(
        images=len(difference),
        max_probability_difference=difference.max().item(),
        max_embedding_difference=(reference.embedding - candidate.embedding).abs().max().item(),
        top1_disagreements=tuple(top1.nonzero().flatten().tolist()),
        triage_disagreements=tuple(triage.nonzero().flatten().tolist()),
        set_disagreements=tuple(sets.nonzero().flatten().tolist()),
        worst=int(difference.nan_to_num(nan=torch.inf).argmax()),
        limits=limits,
    )


@torch.inference_mode()
def check_merge(bundle: Bundle, normalised: Tensor) -> float:
    """Largest difference of embeddings before and after folding the adapter in.

    Args:
        normalised: images as the vision tower expects them, fp32 (N, 3, 224, 224).

    Raises:
        GateFailed: it exceeds 1e-5.
    """
    if bundle.adapter is None:
        return 0.0
    apart = load_unmerged(bundle).encode_image(normalised, normalize=True)
    merged = load_merged(bundle).encode_image(normalised, normalize=True)
    difference = float((apart - merged).abs().max())
    if not difference <= MERGE_LIMIT:
        raise GateFailed(f"merging the adapter moved embeddings by {difference:.2e}, limit {MERGE_LIMIT:.0e}")
    return difference


def synthetic_samples(count: int = SYNTHETIC_IMAGES) -> Samples:
    """Drawn pictures, for gates where no photographs are at hand."""
    pixels = np.stack([resize_and_crop(draw(seed, (300, 225)).image) for seed in range(count)])
    return Samples(torch.from_numpy(pixels), tuple(f"synthetic {n}" for n in range(count)), "synthetic")


def folder_samples(folder: Path, most: int = 256) -> Samples:
    """Photographs of a folder, spread evenly over its file names.

    Raises:
        ValueError: it holds no image.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    chosen = paths[:: -(-len(paths) // most)]
    pixels = np.stack([_pixels(path) for path in chosen])
    return Samples(torch.from_numpy(pixels), tuple(path.name for path in chosen), folder.name)


def _pixels(path: Path) -> NDArray[np.uint8]:
    try:
        return preprocess(path.read_bytes())
    except InvalidImage as exc:
        raise ValueError(f"{path}: {exc}") from exc

"""What a graph must show before it may be written to a model repository.

    report = compare(reference, candidate, LIMITS["bf16"], labels=labels)    # Answers to the same images
    report.require(names)     # raises GateFailed, naming the worst images

Limits are those of ``derma_serving.runtime.precisions``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional as F

from derma_semantics.domain.contract import Triage
from derma_semantics.evaluation.metrics import MELANOMA, balanced_accuracy
from derma_serving.runtime.precisions import PRECISIONS, Limits
from derma_training.network.classifier import Answers

BATCH = 16

Runner = Callable[[Tensor], Answers]


class GateFailed(RuntimeError):
    """The candidate differs from the reference by more than its limits allow."""


LIMITS = {precision.name: precision.limits for precision in PRECISIONS}


@dataclass(frozen=True)
class Report:
    """How far a candidate strays from the reference; attributes as in ``Limits``.

    Attributes:
        top1, triage, prediction_set, quality: the images on which these changed.
        companions: None where it was not measured.
        balanced_accuracy, melanoma: reference and candidate; None without labels. Of melanomas the share that
            triage does not call routine.
        lost: melanomas that became routine because the odds of their RISK fell by more than the margin.
        worst: the image with the largest change of a probability.
    """

    images: int
    probability: float
    cosine: float
    top1: tuple[int, ...]
    triage: tuple[int, ...]
    prediction_set: tuple[int, ...]
    quality: tuple[int, ...]
    worst: int
    limits: Limits
    companions: float | None = None
    balanced_accuracy: tuple[float, float] | None = None
    melanoma: tuple[float, float] | None = None
    lost: tuple[int, ...] = ()

    @property
    def failures(self) -> list[str]:
        """A sentence for each limit that does not hold; not-a-number holds none."""
        return (
            [
                f"{what} by {value:.2e}, limit {limit:.2g}"
                for what, value, limit in self._measured()
                if value is not None and not value <= limit
            ]
            + [
                f"{what} changed on {len(changed)} of {self.images} images, limit {limit:.0%}"
                for what, changed, limit in self._changed()
                if len(changed) > limit * self.images
            ]
            + ([f"melanomas became routine: {len(self.lost)}, limit 0"] if self.lost else [])
        )

    def require(self, names: Sequence[str]) -> None:
        """Raise GateFailed, naming the images, unless every limit holds."""
        if not self.failures:
            return
        images = {self.worst, *self.lost[:5], *(i for _, changed, _ in self._changed() for i in changed[:5])}
        listed = ", ".join(names[i] for i in sorted(images))
        raise GateFailed(f"{'; '.join(self.failures)} (worst images: {listed})")

    def __str__(self) -> str:
        told = [f"probabilities differ by {self.probability:.1e} (limit {self.limits.probability:.2g})"]
        told += [f"cosine {1 - self.cosine:.6f}", f"top-1 changed on {len(self.top1)}"]
        told += [f"triage on {len(self.triage)} of {self.images}"]
        for what, pair in (("balanced accuracy", self.balanced_accuracy), ("melanomas found", self.melanoma)):
            if pair:
                told.append(f"{what} {pair[0]:.3f} → {pair[1]:.3f}")
        return ", ".join(told)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _measured(self) -> list[tuple[str, float | None, float]]:
        limits = self.limits
        return [
            ("probabilities differ", self.probability, limits.probability),
            ("embeddings differ in cosine", self.cosine, limits.cosine),
            ("companions in the batch change probabilities", self.companions, limits.companions),
            ("balanced accuracy fell", _loss(self.balanced_accuracy), limits.balanced_accuracy),
        ]

    def _changed(self) -> list[tuple[str, tuple[int, ...], float]]:
        limits = self.limits
        return [
            ("top-1", self.top1, limits.top1),
            ("triage", self.triage, limits.triage),
            ("prediction set", self.prediction_set, limits.prediction_set),
            ("quality", self.quality, limits.quality),
        ]


def compare(
    reference: Answers,
    candidate: Answers,
    limits: Limits,
    *,
    labels: Tensor | None = None,
    companions: float | None = None,
    margin: float = 1.0,
) -> Report:
    """Measure ``candidate`` against ``reference``, answers to the same images.

    Args:
        labels: the images' conditions, int64 (N,), where known.
        companions: see ``companion_effect``.
        margin: of the odds at review, that the bundle's calibration left for coarse arithmetic.
    """
    scores = [torch.cat([a.probabilities, a.risk], dim=-1) for a in (reference, candidate)]
    difference = (scores[0] - scores[1]).abs().amax(dim=-1)
    vectors = [F.normalize(a.embedding.double(), dim=-1) for a in (reference, candidate)]
    top1 = reference.probabilities.argmax(dim=-1) != candidate.probabilities.argmax(dim=-1)
    sets = (reference.prediction_set != candidate.prediction_set).any(dim=-1)
    noticed = (reference.quality != candidate.quality).any(dim=-1)
    pair = (reference, candidate)
    return Report(
        images=len(difference),
        probability=difference.max().item(),
        cosine=(1 - (vectors[0] * vectors[1]).sum(dim=-1)).max().item(),
        top1=_rows(top1),
        triage=_rows((reference.triage != candidate.triage).squeeze(-1)),
        prediction_set=_rows(sets),
        quality=_rows(noticed),
        worst=int(difference.nan_to_num(nan=torch.inf).argmax()),
        limits=limits,
        companions=companions,
        balanced_accuracy=None if labels is None else _both(pair, labels, _balanced_accuracy),
        melanoma=None if not _any_melanoma(labels) else _both(pair, labels, _melanomas_found),
        lost=() if labels is None else _rows(_lost(reference, candidate, margin) & (labels == MELANOMA)),
    )


def companion_effect(run: Runner, pixels: Tensor, batch: int = BATCH) -> float:
    """Largest change of a probability between an image alone and in a batch of others."""
    some = pixels[:: max(1, len(pixels) // batch)][:batch]
    together = run(some)
    alone = in_batches(run, some, 1)
    pairs = ((together.probabilities, alone.probabilities), (together.risk, alone.risk))
    return max(float((a - b).abs().max()) for a, b in pairs)


def in_batches(run: Runner, pixels: Tensor, batch: int = BATCH) -> Answers:
    """Answers to any number of images, computed ``batch`` at a time."""
    return Answers(*map(torch.cat, zip(*(run(part) for part in pixels.split(batch)))))


def _both(
    pair: tuple[Answers, Answers], labels: Tensor, measure: Callable[[Answers, Tensor], float]
) -> tuple[float, float]:
    return measure(pair[0], labels), measure(pair[1], labels)


def _balanced_accuracy(answers: Answers, labels: Tensor) -> float:
    return balanced_accuracy(answers.probabilities.argmax(dim=-1).numpy(), labels.numpy())


def _melanomas_found(answers: Answers, labels: Tensor) -> float:
    found = answers.triage[labels == MELANOMA] > Triage.ROUTINE
    return float(found.float().mean())


def _lost(reference: Answers, candidate: Answers, margin: float) -> Tensor:
    """Which images became routine by more than the margin allows, bool (N,)."""
    routine = (reference.triage > Triage.ROUTINE) & (candidate.triage == Triage.ROUTINE)
    before, after = (answers.risk / (1 - answers.risk) for answers in (reference, candidate))
    return (routine & ~(before <= margin * after)).squeeze(-1)


def _any_melanoma(labels: Tensor | None) -> TypeGuard[Tensor]:
    return labels is not None and bool((labels == MELANOMA).any())


def _loss(pair: tuple[float, float] | None) -> float | None:
    return None if pair is None else pair[0] - pair[1]


def _rows(changed: Tensor) -> tuple[int, ...]:
    return tuple(changed.nonzero().flatten().tolist())

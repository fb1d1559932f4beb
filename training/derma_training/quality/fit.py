"""Choosing the input check's limits: the spread of training images, and few alarms on held-out ones.

quality = fit_quality(bundle, parts)
bundle = with_quality(bundle, parts)    # the same, and seals the bundle with it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from derma_training.bundle import Bundle
from derma_training.bundle.folders import reseal
from derma_training.bundle.limits import MEASURES, Cloud, Quality, write_quality
from derma_training.data import Example, Parts, load_pixels
from derma_training.network import pixels as measured
from derma_training.network.check import Measures
from derma_training.network.classifier import BATCH, Classifier

# Share of the held-out images that may be noticed for any reason; the promise for new ones is 5 %.
ALARMS = 0.03
# How the measures share these alarms: most goes to what tells other pictures from lesions.
SHARES = {
    "softness": 0.15,
    "darkness": 0.05,
    "brightness": 0.05,
    "glare": 0.05,
    "emptiness": 0.1,
    "embedding": 0.2,
    "appearance": 0.4,
}
# A limit is never tighter than this: sound photographs of other cameras have some glare.
AT_LEAST = {"glare": 0.02}
MOST_TRAINING_IMAGES = 2000
# Fewer say too little of the rarest few in a hundred.
LEAST_PHOTOGRAPHS = 200
_STEPS = 400


def with_quality(bundle: Bundle, parts: Parts, own: Tensor | None = None) -> Bundle:
    """Give a sealed bundle limits of its own, or new ones; returns it under its new digest."""
    quality = fit_quality(bundle, parts, own)
    return reseal(bundle, lambda draft: write_quality(draft, quality))


def fit_quality(bundle: Bundle, parts: Parts, own: Tensor | None = None) -> Quality:
    """The clouds of the training part, and limits from the validation and calibration parts.

    Where there is a part ``other``, half of it must not be noticed any more often (``halved``): each limit
    is the looser of the two.

    Args:
        own: photographs for which it shall be, uint8 (N, 224, 224, 3): a clinic's, say. Half of them join the
            clouds, the others choose the limits instead.

    Raises:
        ValueError: a part is empty, or there are too few photographs.
    """
    held_out = [*parts.validation, *parts.calibration]
    if not parts.train or not held_out:
        raise ValueError("the input check needs images of the bundle's training part and of a held-out one")
    if own is not None and len(own) < LEAST_PHOTOGRAPHS:
        raise ValueError(f"{len(own)} photographs choose no limits: at least {LEAST_PHOTOGRAPHS} are needed")
    some = parts.train[:: -(-len(parts.train) // MOST_TRAINING_IMAGES)]
    known = load_pixels(some, label="training images")
    if own is not None:
        known, own = torch.cat([known, own[::2]]), own[1::2]
    classifier = Classifier.from_bundle(bundle)
    embeddings = classifier.in_batches(known).embedding
    clouds = {"embedding": Cloud.around(embeddings), "appearance": Cloud.around(_looks(known))}
    choosing = [load_pixels(held_out, label="held-out images")] if own is None else [own]
    if own is None and parts.other:
        choosing.append(load_pixels(halved(parts.other)[0], label="images of other collections"))
    values = [measure(classifier, pixels, clouds) for pixels in choosing]
    each = [choose_limits(one) for one in values]
    limits = {name: max(one[name] for one in each) for name in MEASURES}
    report: dict[str, Any] = {
        "training_images": len(known),
        "limits_from": "held-out parts" if own is None else "photographs of the user's own",
        "held_out_images": sum(map(len, choosing)),
        "alarms": ALARMS,
        "noticed": float(noticed(torch.cat(values), limits).any(dim=1).float().mean()),
    }
    return Quality(limits, clouds, report)


def halved(other: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """The half of a part ``other`` that chooses limits, and the one that measures them."""
    return list(other[::2]), list(other[1::2])


def choose_limits(values: Tensor, alarms: float = ALARMS) -> dict[str, float]:
    """The tightest limits, shared as in ``SHARES``, that notice at most ``alarms`` of these images.

    Args:
        values: of ``MEASURES``, fp32 (N, len(MEASURES)).
    """
    tightest = alarms / max(SHARES.values())
    for step in range(_STEPS, -1, -1):
        limits = {
            name: _limit(name, column, SHARES[name] * tightest * step / _STEPS)
            for name, column in zip(MEASURES, values.T, strict=True)
        }
        if noticed(values, limits).any(dim=1).float().mean() <= alarms:
            return limits
    raise AssertionError("no image lies beyond the largest value")


def _limit(name: str, values: Tensor, share: float) -> float:
    """What this share of the values exceeds."""
    return max(float(torch.quantile(values, 1 - share)), AT_LEAST.get(name, -torch.inf))


def noticed(values: Tensor, limits: dict[str, float]) -> Tensor:
    """Which measures are over their limits, bool (N, len(MEASURES))."""
    return values > torch.tensor([limits[name] for name in MEASURES])


@torch.inference_mode()
def measure(classifier: Classifier, pixels: Tensor, clouds: dict[str, Cloud]) -> Tensor:
    """All ``MEASURES`` of uint8 (N, 224, 224, 3); fp32 (N, len(MEASURES))."""
    measures, embeddings = Measures(clouds), classifier.in_batches(pixels).embedding
    pairs = zip(pixels.split(BATCH), embeddings.split(BATCH), strict=True)
    return torch.cat([measures(part, embedded) for part, embedded in pairs])


@torch.inference_mode()
def _looks(pixels: Tensor) -> Tensor:
    return torch.cat([measured.appearance(measured.planes(part)) for part in pixels.split(BATCH)])

"""How many images each condition has, and fewer nevi.

    class_counts(parts.train)                           # {'MEL': 344, 'NV': 3026, ...}
    train = downsample(parts.train, most=1500)

Two thirds of HAM10000 are nevi. What is dropped is benign: a cancer is never left out.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from derma_semantics.domain.conditions import CODES, by_code
from derma_training.data.table import Example

NEVI = "NV"
MOST_NEVI = 1500


def class_counts(examples: Iterable[Example]) -> dict[str, int]:
    """Images a condition, in the order of ``CONDITIONS``, those without any included."""
    counts = [0] * len(CODES)
    for example in examples:
        counts[example.condition] += 1
    return dict(zip(CODES, counts))


def downsample(
    examples: Sequence[Example], code: str = NEVI, most: int = MOST_NEVI, *, seed: int = 0
) -> list[Example]:
    """Keep at most ``most`` images of one benign condition, whole lesions drawn at random.

    Raises:
        ValueError: the condition is malignant or pre-malignant, or ``most`` is below 1.
    """
    if by_code(code).malignant:
        raise ValueError(f"{code} is malignant or pre-malignant: none of its images may be left out")
    if most < 1:
        raise ValueError(f"at most {most} images of {code}: the least is 1")
    kept = _draw(examples, CODES.index(code), most, seed)
    return [e for e in examples if e.condition != CODES.index(code) or e.lesion in kept]


def _draw(examples: Sequence[Example], condition: int, most: int, seed: int) -> set[str]:
    """Lesions in random order, each taken where it still fits."""
    images: dict[str, int] = defaultdict(int)
    for example in examples:
        images[example.lesion] += example.condition == condition
    order = sorted(lesion for lesion, count in images.items() if count)
    random.Random(seed).shuffle(order)
    kept, total = set(), 0
    for lesion in order:
        if total + images[lesion] <= most:
            kept.add(lesion)
            total += images[lesion]
    return kept

"""What repeated measurements say: never one figure, always its spread.

    spread([9, 11, 10])              # {"median": 10, "min": 9, "max": 11}
    ratio([4, 9], [2, 3])            # {"median": 2.5, "min": 2, "max": 3}

A ratio is that of two measurements that were neighbours in time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    values = list(values)
    return {"median": median(values), "min": min(values), "max": max(values)}


def ratio(ours: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of the ratios of pairs that were measured together.

    Raises:
        ValueError: not pairs, or one of the others did nothing.
    """
    if len(ours) != len(others) or not ours:
        raise ValueError(f"{len(ours)} and {len(others)} measurements are no pairs")
    if min(others) <= 0:
        raise ValueError("a contender answered nothing, so that there is no ratio to it")
    return spread([a / b for a, b in zip(ours, others)])

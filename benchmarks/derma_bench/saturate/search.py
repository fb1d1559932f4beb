"""The highest arrival rate that a service bears.

    found = search(probe, limit_ms=100, start=5.0)      # probe(rate) -> Load
    found.rate                                          # 0.0 if even the slowest failed

Doubles until a probe fails, then halves the interval between the highest rate that
passed and the lowest that failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from derma_bench.load.journal import Load

PRECISION = 0.05
PROBES = 14


@dataclass(frozen=True)
class Found:
    """``complete`` tells whether the search ended by itself, not because its probes were used up."""

    rate: float
    complete: bool
    probes: list[dict[str, Any]]


def passes(load: Load, limit_ms: float) -> bool:
    """Every request was answered, 99 of 100 within the limit."""
    return load.completed > 0 and not load.failures and load.latency_ms["p99"] <= limit_ms


def search(
    probe: Callable[[float], Load],
    limit_ms: float,
    start: float,
    *,
    most: int = PROBES,
    precision: float = PRECISION,
) -> Found:
    """Search with at most ``most`` probes, until the rate is known to ``precision``."""
    passed, failed, rate = 0.0, math.inf, start
    probes: list[dict[str, Any]] = []
    while len(probes) < most and failed - passed > precision * passed:
        load = probe(rate)
        good = passes(load, limit_ms)
        passed, failed = (max(passed, rate), failed) if good else (passed, min(failed, rate))
        probes.append({"rate": rate, "passed": good, **load.to_dict()})
        rate = _next(passed, failed)
    return Found(passed, failed - passed <= precision * passed, probes)


def _next(passed: float, failed: float) -> float:
    if math.isinf(failed):
        return 2 * passed
    return (passed + failed) / 2

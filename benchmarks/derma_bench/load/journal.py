"""What became of the requests of one measurement.

    journal = Journal(start, end)
    journal.latencies.append(0.012)                     # seconds
    journal.load("closed", 8).latency_ms["p99"]

Times are seconds until ``load`` makes milliseconds of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Load:
    """What one measurement found.

    Attributes:
        offered: arrivals a second (open loop) or requests under way (closed loop).
        throughput: answers a second within the measured time.
        failures: counts by kind; ``overflow``: too many were under way, ``unfinished``: no end.
        latency_ms: mean, p50, p90, p95, p99, max of answered requests.
        lag_ms: 99th percentile of how late the generator itself sent (open loop).
    """

    loop: str
    offered: float
    seconds: float
    sent: int
    completed: int
    throughput: float
    failures: dict[str, int]
    latency_ms: dict[str, float]
    lag_ms: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Journal:
    """Collects outcomes; those outside the measured time are warm-up or aftermath."""

    start: float
    end: float
    answered: int = 0
    latencies: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def covers(self, moment: float) -> bool:
        return self.start <= moment < self.end

    def __add__(self, other: Journal) -> Journal:
        """Both as one; they began and ended together."""
        return Journal(
            self.start,
            self.end,
            self.answered + other.answered,
            self.latencies + other.latencies,
            self.lags + other.lags,
            self.failures + other.failures,
        )

    def load(self, loop: str, offered: float) -> Load:
        seconds, failed = self.end - self.start, sum(self.failures.values())
        return Load(
            loop,
            offered,
            round(seconds, 6),
            len(self.latencies) + failed,
            len(self.latencies),
            self.answered / seconds,
            dict(self.failures),
            latency(self.latencies),
            float(np.percentile(self.lags, 99)) * 1e3 if self.lags else 0.0,
        )


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """Mean, percentiles and maximum in milliseconds; empty where nothing was answered."""
    if not seconds:
        return {}
    values = np.asarray(seconds) * 1e3
    points = dict(zip((f"p{q}" for q in PERCENTILES), np.percentile(values, PERCENTILES).tolist()))
    return {"mean": float(values.mean()), **points, "max": float(values.max())}

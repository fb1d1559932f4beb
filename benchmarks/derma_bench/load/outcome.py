"""Requests of a measurement, and the figures that they give.

    request = await requested(lambda: send(image))          # Request(due, sent, ended, failure)
    Load.of("closed", 8, requests, start, end).latency_ms["p99"]

Moments are those of ``time.monotonic``, one clock for all processes of a machine.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 95, 99)


class Failed(Exception):
    """A failure known by its kind alone: ``overflow``, ``unfinished``, or that of another process."""


@dataclass(frozen=True)
class Request:
    """One request: when it was due, sent and ended, and why it failed."""

    due: float
    sent: float
    ended: float
    failure: Exception | None = None

    @property
    def seconds(self) -> float:
        """From when it was due: a stalled service delays sending, too."""
        return self.ended - self.due

    def portable(self) -> Request:
        """Replace the failure, which may not be picklable, by its kind."""
        return replace(self, failure=Failed(kind(self.failure))) if self.failure else self


async def requested(ask: Callable[[], Awaitable[object]], due: float | None = None) -> Request:
    """Send one request; every failure is an outcome, not this program's end."""
    sent, failure = time.monotonic(), None
    try:
        await ask()
    except Exception as exc:
        failure = exc
    return Request(sent if due is None else due, sent, time.monotonic(), failure)


def kind(failure: Exception) -> str:
    """The name under which a failure is counted."""
    if isinstance(failure, Failed):
        return str(failure)
    status = getattr(getattr(failure, "response", None), "status_code", None)
    return f"HTTP {status}" if status else type(failure).__name__


@dataclass(frozen=True)
class Load:
    """Figures of one measurement.

    Attributes:
        offered: arrivals a second (open loop) or requests in flight (closed loop).
        throughput: answers a second within the measured time.
        failures: counts by kind; ``overflow``: too many in flight, ``unfinished``: no answer.
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

    @classmethod
    def of(cls, loop: str, offered: float, requests: Iterable[Request], start: float, end: float) -> Load:
        """Count what was due (open loop) or ended (closed loop) between two moments."""
        requests = list(requests)
        counted = [one for one in requests if start <= (one.due if loop == "open" else one.ended) < end]
        answered = [one.seconds for one in counted if one.failure is None]
        lags = [one.sent - one.due for one in counted]
        in_time = sum(one.failure is None and start <= one.ended < end for one in requests)
        return cls(
            loop,
            offered,
            round(end - start, 6),
            len(counted),
            len(answered),
            in_time / (end - start),
            dict(Counter(kind(one.failure) for one in counted if one.failure)),
            latency(answered),
            float(np.percentile(lags, 99)) * 1e3 if lags else 0.0,
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """Mean, percentiles and maximum in milliseconds; empty where nothing was answered."""
    if not seconds:
        return {}
    values = np.asarray(seconds) * 1e3
    points = dict(zip((f"p{q}" for q in PERCENTILES), np.percentile(values, PERCENTILES).tolist()))
    return {"mean": float(values.mean()), **points, "max": float(values.max())}

"""Metrics of the sidecar, for Prometheus.

observed = Observed()
with observed.stage("explain"): ...
observed.text()
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Observed:
    """Requests by outcome, seconds by stage, and requests in flight."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "derma_saliency_requests",
            "Requests by outcome: ok, or the name of the error.",
            ["outcome"],
            registry=self.registry,
        )
        self.stages = Histogram(
            "derma_saliency_stage_seconds",
            "Seconds a request spends in a stage: read, queue, explain, render.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "derma_saliency_in_flight", "Requests in flight, queued ones included.", registry=self.registry
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.stages.labels(name).observe(time.perf_counter() - begin)

    def text(self) -> bytes:
        return generate_latest(self.registry)

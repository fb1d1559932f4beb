"""``derma-bench saturate``: the highest arrival rate with p99 under a limit, and latency below it.

    figures, probes, subject = measure(images, Request(p99=100), state)
    search(probe, limit_ms=100, start=5.0).rate         # probe(rate) -> Load; 0.0 if even the slowest failed

The rate that was found is then tried with other arrivals than those of the search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from derma_bench.load.generator import Generator
from derma_bench.load.outcome import Load
from derma_bench.servers.ours import OURS, REPOSITORY, ours, served
from derma_bench.turns import Measured, Row

PRECISION = 0.05
PROBES = 14
SHARE = 0.7
# A 99th percentile of fewer requests than this is their maximum, more or less.
SAMPLES = 200
LONGEST = 60.0
# At 3 % above capacity, a queue reaches the limit after this many times the limit.
BACKLOG = 30


@dataclass(frozen=True)
class Request:
    """Bounds of the search.

    Attributes:
        p99: limit in milliseconds.
        seconds: of one probe, longer where that would be too few requests.
        start: first arrival rate; a quarter of what a short closed loop reaches where it is None.
        samples: requests that a probe should hold at least.
        backlog: times ``p99`` that a probe should last at least.
    """

    p99: float
    seconds: float = 10.0
    start: float | None = None
    probes: int = PROBES
    samples: int = SAMPLES
    backlog: float = BACKLOG
    repository: Path = REPOSITORY
    url: str | None = None
    seed: int = 0
    processes: int = 1

    def long_enough(self, rate: float) -> float:
        """Seconds until a queue which only grows passes the limit, and for enough requests."""
        return max(self.seconds, min(LONGEST, max(self.samples / rate, self.backlog * self.p99 / 1e3)))


@dataclass(frozen=True)
class Found:
    """``complete``: the search ended by itself, not because its probes were used up."""

    rate: float
    complete: bool
    probes: list[Row]


def measure(images: Sequence[bytes], request: Request, state: Path) -> Measured:
    """Search, then measure at 70 % of what was found, and one request at a time.

    Raises:
        ServiceFailed: the service did not start.
    """
    with (
        ours(request.url, request.repository, state / OURS) as running,
        Generator(images, request.processes) as generator,
        tqdm(total=request.probes, desc="probes") as bar,
    ):
        subject = served(running.url) | {"sending_processes": request.processes}

        def probe(rate: float, seed: int = 0, times: int = 1) -> Load:
            seconds = times * request.long_enough(rate)
            return generator.open(running.connect, rate, seconds, seed=request.seed + seed)

        def counted(rate: float) -> Load:
            bar.set_postfix_str(f"{rate:.1f}/s")
            bar.update()
            return probe(rate)

        alone = generator.closed(running.connect, 1, request.seconds)
        # A quarter of four requests at a time: surely below saturation, soon above it.
        four = None if request.start else generator.closed(running.connect, 4, min(request.seconds, 5.0))
        start = request.start or max(0.1, four.throughput / 4 if four else 0)
        found = search(counted, request.p99, start, most=request.probes)
        figures: Row = {
            "p99_limit_ms": request.p99,
            "rate": found.rate,
            "complete": found.complete,
            "alone": alone.to_dict(),
            "load_curve": sorted(found.probes, key=lambda one: float(one["rate"])),
        }
        if found.rate:
            # Other arrivals than those the search was lucky or unlucky with.
            below, again = probe(SHARE * found.rate, seed=1, times=3), probe(found.rate, seed=2)
            figures["confirmed"] = {"passed": passes(again, request.p99), **again.to_dict()}
            figures["at_share"] = {"share": SHARE, **below.to_dict()}
    return figures, found.probes, subject


def passes(load: Load, limit_ms: float) -> bool:
    """Every request was answered, 99 of 100 within the limit."""
    return load.completed > 0 and not load.failures and load.latency_ms["p99"] <= limit_ms


def search(probe: Callable[[float], Load], limit_ms: float, start: float, *, most: int = PROBES) -> Found:
    """Double the rate until a probe fails, then halve the interval, with at most ``most`` probes."""
    passed, failed, rate = 0.0, math.inf, start
    probes: list[Row] = []
    while len(probes) < most and failed - passed > PRECISION * passed:
        load = probe(rate)
        good = passes(load, limit_ms)
        passed, failed = (max(passed, rate), failed) if good else (passed, min(failed, rate))
        probes.append({"rate": rate, "passed": good, **load.to_dict()})
        rate = 2 * passed if math.isinf(failed) else (passed + failed) / 2
    return Found(passed, failed - passed <= PRECISION * passed, probes)

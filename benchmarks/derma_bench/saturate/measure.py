"""``derma-bench saturate``: the highest arrival rate with p99 under a limit, and latency below it.

    figures, probes, subject = measure(images, Request(p99=100), state)

The rate that was found is then tried with other arrivals than those of the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from derma_bench.load.generator import Generator
from derma_bench.load.journal import Load
from derma_bench.saturate.search import PROBES, passes, search
from derma_bench.servers.ours import OURS, REPOSITORY, ours, served
from derma_bench.servers.running import Running

SHARE = 0.7
# A 99th percentile of fewer requests than this is their maximum, more or less.
SAMPLES = 200
LONGEST = 60.0
# At 3 % above capacity, a queue reaches the limit after this many times the limit.
BACKLOG = 30


@dataclass(frozen=True)
class Request:
    """What to search.

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


def measure(
    images: Sequence[bytes], request: Request, state: Path
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
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
        alone = generator.closed(running.connect, 1, request.seconds)
        start = request.start or _quarter(running, generator, request)

        def probe(rate: float) -> Load:
            bar.set_postfix_str(f"{rate:.1f}/s")
            bar.update()
            return generator.open(running.connect, rate, _long_enough(request, rate), seed=request.seed)

        found = search(probe, request.p99, start, most=request.probes)
        figures: dict[str, Any] = {
            "p99_limit_ms": request.p99,
            "rate": found.rate,
            "complete": found.complete,
            "alone": alone.to_dict(),
            "load_curve": sorted(found.probes, key=lambda one: float(one["rate"])),
        }
        if found.rate:
            rate = SHARE * found.rate
            seconds = 3 * _long_enough(request, rate)
            # Other arrivals than those the search was lucky or unlucky with.
            below = generator.open(running.connect, rate, seconds, seed=request.seed + 1)
            again = generator.open(
                running.connect, found.rate, _long_enough(request, found.rate), seed=request.seed + 2
            )
            figures["confirmed"] = {"passed": passes(again, request.p99), **again.to_dict()}
            figures["at_share"] = {"share": SHARE, **below.to_dict()}
    return figures, found.probes, subject


def _long_enough(request: Request, rate: float) -> float:
    """So long that a queue which only grows passes the limit, and for enough requests."""
    return max(
        request.seconds, min(LONGEST, max(request.samples / rate, request.backlog * request.p99 / 1e3))
    )


def _quarter(running: Running, generator: Generator, request: Request) -> float:
    """A quarter of what four requests at a time reach: surely below saturation, soon above it."""
    load = generator.closed(running.connect, 4, min(request.seconds, 5.0))
    return max(0.1, load.throughput / 4)

"""``derma-bench saturate``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from derma_bench import options
from derma_bench.failures import reported
from derma_bench.outcome import finish
from derma_bench.payloads import described, payloads


@click.command()
@click.option(
    "--p99",
    type=click.FloatRange(min=0, min_open=True),
    required=True,
    help="Limit of the 99th percentile, ms.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Of a probe."
)
@click.option(
    "--start", type=click.FloatRange(min=0, min_open=True), help="First rate; default: from a closed loop."
)
@click.option("--probes", type=click.IntRange(min=1), default=14, show_default=True, help="At most.")
@click.option("--seed", default=0, show_default=True, help="Of the arrivals.")
@options.out("saturate")
@options.service
def saturate(
    p99: float, seconds: float, start: float | None, probes: int, seed: int, out: Path, **common: Any
) -> None:
    """Find the highest Poisson arrival rate whose p99 stays under a limit, with no failure.

    A probe takes longer than --seconds where it would hold fewer than 200 requests, or last
    less than 30 times the limit: a queue that only grows must have time to pass it. The rate is
    tried again with other arrivals. Then latency is measured at 70 % of that rate, and with one
    request at a time.
    """
    from derma_bench.saturate.measure import Request, measure

    sizes: dict[str, Any] = {"seconds": seconds, "probes": probes}
    if common["smoke"]:
        sizes = {"seconds": 0.5, "probes": 3, "samples": 5, "backlog": 0}
    with reported(), tempfile.TemporaryDirectory(prefix="derma-bench-") as state:
        images = payloads(common["images"])
        request = Request(p99, start=start, seed=seed, **sizes, **options.chosen(common))
        figures, probed, subject = measure(images, request, Path(state))
        subject |= {"payloads": described(common["images"], images)}
        finish("saturate", out, (figures, probed, subject), smoke=common["smoke"])

"""Load from as many processes as it takes: one Python process sends some hundred requests a second.

    with Generator(images, processes=8) as generator:
        generator.closed(running.connect, workers=64, seconds=10)
        generator.open(running.connect, rate=4000, seconds=10)

The processes start and end measuring at one moment; Poisson arrivals of several add up to
Poisson arrivals.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from operator import add
from types import TracebackType
from typing import Any

from derma_bench.load.journal import Journal, Load
from derma_bench.load.loops import OUTSTANDING, WARM_UP, closed_loop, open_loop
from derma_bench.load.senders import Connect

# Until every process has its task and its connection's code loaded.
HEAD_START = 1.0

_images: list[bytes] = []


class Generator:
    """Sends images from this process, or from several others.

    Args:
        processes: 1 sends from this one.
    """

    def __init__(self, images: Sequence[bytes], processes: int = 1) -> None:
        self.images, self.processes = list(images), processes
        self._pool: ProcessPoolExecutor | None = None

    def closed(self, connect: Connect, workers: int, seconds: float, *, warm_up: float = WARM_UP) -> Load:
        """``workers`` requests always under way, shared between the processes."""
        count = min(self.processes, workers)
        shares = [workers // count + (number < workers % count) for number in range(count)]
        journal = self._run(_closed, [(connect, share, seconds, warm_up) for share in shares])
        return journal.load("closed", workers)

    def open(
        self, connect: Connect, rate: float, seconds: float, *, warm_up: float = WARM_UP, seed: int = 0
    ) -> Load:
        """Poisson arrivals, shared between the processes."""
        share = rate / self.processes
        seeds = [seed * 1000 + number for number in range(self.processes)]
        journal = self._run(_open, [(connect, share, seconds, warm_up, one) for one in seeds])
        return journal.load("open", rate)

    def __enter__(self) -> Generator:
        if self.processes > 1:
            # Spawned: a fork would inherit gRPC's threads in whatever state they are.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, context, _keep, (self.images,))
            list(self._pool.map(time.sleep, [HEAD_START] * self.processes))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _run(self, task: Callable[..., Journal], shares: Sequence[tuple[Any, ...]]) -> Journal:
        if self._pool is None:
            _keep(self.images)
            return task(None, *shares[0])
        begin = time.perf_counter() + HEAD_START  # one clock for all processes of a Linux machine
        journals = [self._pool.submit(task, begin, *share) for share in shares]
        return reduce(add, [journal.result() for journal in journals])


def _keep(images: list[bytes]) -> None:
    _images[:] = images


def _closed(begin: float | None, connect: Connect, workers: int, seconds: float, warm_up: float) -> Journal:
    async def run() -> Journal:
        async with connect() as sender:
            return await closed_loop(sender, _images, workers, seconds, warm_up=warm_up, begin=begin)

    return asyncio.run(run())


def _open(
    begin: float | None, connect: Connect, rate: float, seconds: float, warm_up: float, seed: int
) -> Journal:
    async def run() -> Journal:
        async with connect() as sender:
            return await open_loop(
                sender,
                _images,
                rate,
                seconds,
                warm_up=warm_up,
                seed=seed,
                outstanding=OUTSTANDING,
                begin=begin,
            )

    return asyncio.run(run())

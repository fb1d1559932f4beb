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
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any, TypeAlias

from derma_bench.load.loops import closed_loop, open_loop
from derma_bench.load.outcome import Load, Request
from derma_bench.load.senders import Connect

WARM_UP = 1.0
START = 300.0  # seconds for all processes to start and to connect

# A loop, its connection, its workers or rate, and more of its arguments.
Task: TypeAlias = tuple[Callable[..., Awaitable[list[Request]]], Connect, float, dict[str, Any]]

_images: list[bytes] = []
_together: list[Barrier] = []


class Generator:
    """Sends images from this process, or from several others.

    Args:
        processes: 1 sends from this one.
    """

    def __init__(self, images: Sequence[bytes], processes: int = 1) -> None:
        self.images, self.processes = list(images), processes
        self._pool: ProcessPoolExecutor | None = None

    def closed(self, connect: Connect, workers: int, seconds: float, *, warm_up: float = WARM_UP) -> Load:
        """Keep ``workers`` requests in flight, shared between the processes."""
        count = self.processes
        shares = [workers // count + (number < workers % count) for number in range(count)]
        tasks: list[Task] = [(closed_loop, connect, share, {}) for share in shares]
        return Load.of("closed", workers, *self._measured(tasks, warm_up, seconds))

    def open(
        self, connect: Connect, rate: float, seconds: float, *, warm_up: float = WARM_UP, seed: int = 0
    ) -> Load:
        """Send at Poisson arrivals, shared between the processes."""
        seeds = [{"seed": seed * 1000 + number} for number in range(self.processes)]
        tasks: list[Task] = [(open_loop, connect, rate / self.processes, one) for one in seeds]
        return Load.of("open", rate, *self._measured(tasks, warm_up, seconds))

    def __enter__(self) -> Generator:
        if self.processes > 1:
            # Spawned: a fork would inherit gRPC's threads in whatever state they are.
            context = multiprocessing.get_context("spawn")
            together = context.Barrier(self.processes)
            self._pool = ProcessPoolExecutor(self.processes, context, _keep, (self.images, together))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def _measured(
        self, tasks: Sequence[Task], warm_up: float, seconds: float
    ) -> tuple[list[Request], float, float]:
        """All requests, and the measured time after the warm-up."""
        if self._pool is None:
            _keep(self.images)
            found = [_run(warm_up + seconds, task) for task in tasks]
        else:
            jobs = [self._pool.submit(_run, warm_up + seconds, task) for task in tasks]
            found = [job.result() for job in jobs]
        start = max(begin for begin, _ in found) + warm_up
        return [one for _, requests in found for one in requests], start, start + seconds


def _keep(images: list[bytes], together: Barrier | None = None) -> None:
    _images[:] = images
    _together[:] = [together] if together else []


def _run(seconds: float, task: Task) -> tuple[float, list[Request]]:
    """Connect, and begin together with the other processes."""
    loop, connect, amount, options = task

    async def run() -> tuple[float, list[Request]]:
        async with connect() as send:
            for barrier in _together:
                barrier.wait(START)
            begin = time.monotonic()
            found = await loop(send, _images, amount, seconds, **options)
            return begin, [one.portable() for one in found]

    return asyncio.run(run())

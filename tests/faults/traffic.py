"""Requests as users send them, each with what became of it.

async with sender(url, image) as ask:
    requests = await arriving(ask, rate=100, seconds=5)
percentile([one.seconds for one in requests if one.failure is None], 99)
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import chain, cycle

import numpy as np

from derma_semantics import DermaClient
from derma_semantics.wire.transport import GrpcAsyncTransport

Ask = Callable[[], Awaitable[object]]

BACK_OFF = 0.05  # seconds after a failure; a client that hammers takes the processor from the service


@dataclass(frozen=True)
class Request:
    """When it was sent and ended, by ``time.monotonic``; why it failed."""

    sent: float
    ended: float
    failure: Exception | None = None

    @property
    def seconds(self) -> float:
        return self.ended - self.sent


def percentile(values: list[float], q: float) -> float:
    return float(np.percentile(values, q))


@asynccontextmanager
async def sender(url: str, *images: bytes, timeout: float = 60.0) -> AsyncIterator[Ask]:
    """Sends one image after the other as ``AsyncDermaClient`` does, without a client's work before and after.

    Many clients have many processors for that; here they share one thread, and the service's processors.
    """
    transport, turns = GrpcAsyncTransport(url), cycle(images)
    try:
        yield lambda: transport.infer(next(turns), timeout)
    finally:
        await transport.close()


async def arriving(ask: Ask, rate: float, seconds: float) -> list[Request]:
    """Open loop: a Poisson process does not wait for answers."""
    rng, begun, due, tasks = np.random.default_rng(0), time.monotonic(), 0.0, []
    while (due := due + float(rng.exponential(1 / rate))) < seconds:
        await asyncio.sleep(max(0.0, begun + due - time.monotonic()))
        tasks.append(asyncio.create_task(_one(ask)))
    return await asyncio.gather(*tasks)


async def kept_busy(ask: Ask, workers: int, seconds: float) -> list[Request]:
    """Closed loop: so many are always under way."""
    end = time.monotonic() + seconds

    async def work() -> list[Request]:
        found = []
        while time.monotonic() < end:
            found.append(await _one(ask))
        return found

    return list(chain(*await asyncio.gather(*(work() for _ in range(workers)))))


async def _one(ask: Ask) -> Request:
    sent = time.monotonic()
    try:
        await ask()
    except Exception as exc:
        return Request(sent, time.monotonic(), exc)
    return Request(sent, time.monotonic())


def throughput(requests: list[Request]) -> float:
    """Answers a second."""
    answered = [one.ended for one in requests if one.failure is None]
    return len(answered) / (max(answered) - min(one.sent for one in requests))


@dataclass
class Journal:
    """What background threads were told; ``stop`` ends them before their next request."""

    requests: list[Request] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def failures(self) -> list[Exception]:
        return [one.failure for one in self.requests if one.failure is not None]


@contextmanager
def asking(*asks: Callable[[], object], pause: float = 0.0) -> Iterator[Journal]:
    """Each of these again and again, in a thread of its own, while the block runs.

    Args:
        pause: seconds between an answer and the next question; without one, the processor is theirs.
    """
    journal = Journal()

    def work(ask: Callable[[], object]) -> None:
        failure: Exception | None = None
        while not journal.stop.wait(BACK_OFF if failure else pause):
            sent, failure = time.monotonic(), None
            try:
                ask()
            except Exception as exc:
                failure = exc
            journal.requests.append(Request(sent, time.monotonic(), failure))

    threads = [threading.Thread(target=work, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    try:
        yield journal
    finally:
        journal.stop.set()
        for thread in threads:
            thread.join(150)


@contextmanager
def classifying(url: str, image: bytes, threads: int) -> Iterator[Journal]:
    """Threads that share a client and do not try again."""
    with (
        DermaClient(url, retry_for=0, timeout=60) as client,
        asking(*[lambda: client.classify(image)] * threads) as journal,
    ):
        yield journal

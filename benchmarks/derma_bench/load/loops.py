"""The pacing of load: closed loops, Poisson arrivals, and closed loops in the background.

    async with derma(url) as send:
        requests = await closed_loop(send, images, workers=8, seconds=10)    # 8 always in flight
        requests = await open_loop(send, images, rate=20, seconds=10)        # Poisson arrivals
    with background(lambda: client.classify(image), pause=0.1) as requests: ...

A closed loop finds the highest throughput. An open loop is what users do: latency counts from
when a request was due, so a stalled service cannot hide behind requests that were never
sent (Tene's "coordinated omission").
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import TypeAlias

import numpy as np

from derma_bench.load.outcome import Failed, Request, requested

OUTSTANDING = 256
TIMEOUT = 60.0
BACK_OFF = 0.05  # after a failure; a client that hammers measures itself

Send: TypeAlias = Callable[[bytes], Awaitable[object]]
Ask: TypeAlias = Callable[[], Awaitable[object]]


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """Moments of a Poisson process that begins at 0, without end, the same for the same seed.

    Raises:
        ValueError: the rate is not positive.
    """
    if rate <= 0:
        raise ValueError(f"the rate must be positive, got {rate}")
    rng, moment = np.random.default_rng(seed), 0.0
    while True:
        moment += float(rng.exponential(1 / rate))
        yield moment


async def closed_loop(send: Send, images: Sequence[bytes], workers: int, seconds: float) -> list[Request]:
    """Keep ``workers`` requests in flight, and await the last of them."""
    start, requests = time.monotonic(), list[Request]()

    def ask_from(number: int) -> Ask:
        turn = islice(cycle(images), number % len(images), None)
        return lambda: send(next(turn))

    loops = [
        _repeat(ask_from(number), requests, lambda: time.monotonic() >= start + seconds)
        for number in range(workers)
    ]
    await asyncio.wait_for(asyncio.gather(*loops), seconds + 2 * TIMEOUT)
    return requests


async def open_loop(
    send: Send,
    images: Sequence[bytes],
    rate: float,
    seconds: float,
    *,
    seed: int = 0,
    outstanding: int = OUTSTANDING,
    patience: float = TIMEOUT,
) -> list[Request]:
    """Send at Poisson arrivals.

    Args:
        outstanding: requests in flight at most; an arrival beyond fails as ``overflow``.
        patience: seconds to wait for the last answers; then they fail as ``unfinished``.
    """
    start, requests = time.monotonic(), list[Request]()
    in_flight: dict[asyncio.Task[None], float] = {}

    async def arrive(image: bytes, due: float) -> None:
        requests.append(await requested(lambda: send(image), due))

    for moment, image in zip(arrivals(rate, seed), cycle(images)):
        if moment >= seconds:
            break
        due = start + moment
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if len(in_flight) >= outstanding:
            requests.append(Request(due, due, due, Failed("overflow")))
            continue
        task = asyncio.create_task(arrive(image, due))
        in_flight[task] = due
        task.add_done_callback(in_flight.pop)
    late = (await asyncio.wait(set(in_flight), timeout=patience))[1] if in_flight else set()
    for task in late:
        due = in_flight[task]
        requests.append(Request(due, due, time.monotonic(), Failed("unfinished")))
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return requests


class Background(list[Request]):
    """Requests so far; ``stop`` ends the loops before their next one."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = threading.Event()

    @property
    def failures(self) -> list[Exception]:
        return [one.failure for one in self if one.failure is not None]


@contextmanager
def background(*calls: Callable[[], object], pause: float = 0.0) -> Iterator[Background]:
    """Repeat each of these blocking calls in a thread of its own while the block runs.

    Args:
        pause: seconds between an answer and the next request.
    """
    requests = Background()

    def work(call: Callable[[], object]) -> None:
        async def ask() -> None:
            call()

        asyncio.run(_repeat(ask, requests, requests.stop.is_set, pause))

    threads = [threading.Thread(target=work, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    try:
        yield requests
    finally:
        requests.stop.set()
        for thread in threads:
            thread.join(2.5 * TIMEOUT)


async def _repeat(ask: Ask, requests: list[Request], done: Callable[[], bool], pause: float = 0.0) -> None:
    while not done():
        one = await requested(ask)
        requests.append(one)
        if wait := BACK_OFF if one.failure else pause:
            await asyncio.sleep(wait)

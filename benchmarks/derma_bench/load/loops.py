"""Requests under way, or arriving, as measurements need them.

    async with derma(url) as sender:
        journal = await closed_loop(sender, images, workers=8, seconds=10)    # 8 always under way
        journal = await open_loop(sender, images, rate=20, seconds=10)        # Poisson arrivals
    journal.load("open", 20).latency_ms["p99"]

Closed loop finds the highest throughput. Open loop is what users do: latency counts from
when a request was due, so a stalled service cannot hide behind requests that were never
sent (Tene's "coordinated omission").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from derma_bench.load.journal import Journal
from derma_bench.load.senders import TIMEOUT, Sender, kind

OUTSTANDING = 256
BACK_OFF = 0.05  # after a failure; a client that hammers measures itself
WARM_UP = 1.0


def poisson(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Moments of arrival in [0, seconds): a Poisson process, the same for the same seed."""
    if rate <= 0:
        raise ValueError(f"the rate must be positive, got {rate}")
    rng = np.random.default_rng(seed)
    expected = rate * seconds
    gaps = rng.exponential(1 / rate, size=int(expected + 10 * expected**0.5 + 20))
    moments = gaps.cumsum()
    return moments[moments < seconds]


async def closed_loop(
    sender: Sender,
    images: Sequence[bytes],
    workers: int,
    seconds: float,
    *,
    warm_up: float = WARM_UP,
    begin: float | None = None,
) -> Journal:
    """Keep ``workers`` requests under way; what was sent is awaited, so that nothing is left behind.

    Args:
        begin: moment of ``time.perf_counter`` to start at; now by default.
    """
    begin = await _moment(begin)
    journal = Journal(begin + warm_up, begin + warm_up + seconds)
    asking = asyncio.gather(*(_worker(sender, images, number, journal) for number in range(workers)))
    await asyncio.wait_for(asking, warm_up + seconds + 2 * TIMEOUT)
    return journal


async def _moment(begin: float | None) -> float:
    if begin is None:
        return time.perf_counter()
    await asyncio.sleep(begin - time.perf_counter())
    return begin


async def _worker(sender: Sender, images: Sequence[bytes], number: int, journal: Journal) -> None:
    for image in islice(cycle(images), number % len(images), None):
        since = time.perf_counter()
        if since >= journal.end:
            return
        failure = await _failure(sender, image)
        now = time.perf_counter()
        if journal.covers(now):
            _note(journal, now - since, failure)
            journal.answered += failure is None
        if failure:
            await asyncio.sleep(BACK_OFF)


async def open_loop(
    sender: Sender,
    images: Sequence[bytes],
    rate: float,
    seconds: float,
    *,
    warm_up: float = WARM_UP,
    seed: int = 0,
    outstanding: int = OUTSTANDING,
    patience: float = TIMEOUT,
    begin: float | None = None,
) -> Journal:
    """Send at Poisson arrivals.

    Args:
        outstanding: requests under way at most; an arrival beyond fails as ``overflow``.
        patience: seconds to wait for the last answers; then they fail as ``unfinished``.
    """
    begin = await _moment(begin)
    journal = Journal(begin + warm_up, begin + warm_up + seconds)
    under_way: set[asyncio.Task[None]] = set()
    for moment, image in zip(poisson(rate, warm_up + seconds, seed), cycle(images)):
        due = begin + float(moment)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if len(under_way) >= outstanding:
            journal.failures["overflow"] += journal.covers(due)
            continue
        task = asyncio.create_task(_arrival(sender, image, due, journal))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await _drain(under_way, patience, journal)
    journal.failures = +journal.failures
    return journal


async def _arrival(sender: Sender, image: bytes, due: float, journal: Journal) -> None:
    lag = time.perf_counter() - due
    failure = await _failure(sender, image)
    now = time.perf_counter()
    journal.answered += failure is None and journal.covers(now)
    if journal.covers(due):
        journal.lags.append(lag)
        _note(journal, now - due, failure)


async def _drain(under_way: set[asyncio.Task[None]], patience: float, journal: Journal) -> None:
    if not under_way:
        return
    _, late = await asyncio.wait(set(under_way), timeout=patience)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    journal.failures["unfinished"] += len(late)


def _note(journal: Journal, seconds: float, failure: str | None) -> None:
    if failure:
        journal.failures[failure] += 1
    else:
        journal.latencies.append(seconds)


async def _failure(sender: Sender, image: bytes) -> str | None:
    """The kind of failure, None for an answer."""
    try:
        await sender.send(image)
    except Exception as exc:  # whatever a service does wrong is a count, not this program's end
        return kind(exc)
    return None

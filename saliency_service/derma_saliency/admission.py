"""Admission control: a bound on requests in flight, and one thread that computes, in the order of arrival.

admission = AdmissionControl(limit=8, seconds=30.0)
async with admission.admit() as request:        # Overloaded, at once, over the limit
    answer = await request.compute(function, argument)     # DeadlineExceeded after 30 s in all
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from derma_semantics.domain.errors import DeadlineExceeded, Overloaded

T = TypeVar("T")


class InFlightRequest:
    """One admitted request.

    Attributes:
        queued: seconds that its computation waited for those before it.
    """

    def __init__(self, worker: ThreadPoolExecutor) -> None:
        self._worker = worker
        self.queued = 0.0
        self.running: Future[Any] | None = None

    async def compute(self, function: Callable[..., T], *arguments: object) -> T:
        """Run the function in the computing thread, when the requests before are done."""
        submitted = time.monotonic()

        def run() -> T:
            self.queued = time.monotonic() - submitted
            return function(*arguments)

        self.running = future = self._worker.submit(run)
        return await asyncio.wrap_future(future)


class AdmissionControl:
    """Admits requests; all methods belong to one event loop.

    Args:
        limit: requests in flight, the one that is computed included.
        seconds: deadline of a request, from its head to its answer.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self.in_flight = 0
        self._worker = ThreadPoolExecutor(1, "saliency")

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[InFlightRequest]:
        """Admit one request, for at most ``seconds``.

        Raises:
            Overloaded: too many requests are in flight.
            DeadlineExceeded: the request took too long.
        """
        if self.in_flight >= self.limit:
            raise Overloaded(f"{self.limit} requests are in flight, which is the limit: try later")
        self.in_flight += 1
        request = InFlightRequest(self._worker)
        try:
            async with asyncio.timeout(self.seconds):
                yield request
        except TimeoutError as exc:
            raise DeadlineExceeded(f"not answered within {self.seconds:g} s, which is the limit") from exc
        finally:
            self._release(request)

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _release(self, request: InFlightRequest) -> None:
        """A computation cannot be stopped, so it counts as in flight to its end."""
        if request.running is None or request.running.done():
            self.in_flight -= 1
            return
        loop = asyncio.get_running_loop()
        request.running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._decrement))

    def _decrement(self) -> None:
        self.in_flight -= 1

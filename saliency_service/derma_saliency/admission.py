"""How many requests may be under way, and who computes: one thread, in the order of arrival.

desk = Desk(places=8, seconds=30.0)
async with desk.admitted() as visit:        # Overloaded, at once, where no place is free
    answer = await visit.compute(function, argument)     # DeadlineExceeded after 30 s in all
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


class Visit:
    """One admitted request.

    Attributes:
        waited: seconds that its computation stood in the queue.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.waited = 0.0
        self.running: Future[Any] | None = None

    async def compute(self, function: Callable[..., T], *arguments: object) -> T:
        """Run the function in the computing thread, when the requests before are done."""
        asked = time.monotonic()

        def run() -> T:
            self.waited = time.monotonic() - asked
            return function(*arguments)

        future = self._desk.worker.submit(run)
        self.running = future
        return await asyncio.wrap_future(future)


class Desk:
    """Admits requests; all methods belong to one event loop.

    Args:
        places: requests under way, the one that is computed included.
        seconds: the time a request may take, from its head to its answer.
    """

    def __init__(self, places: int, seconds: float) -> None:
        self.places = places
        self.seconds = seconds
        self.taken = 0
        self.worker = ThreadPoolExecutor(1, "saliency")

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[Visit]:
        """A place, for at most ``seconds``.

        Raises:
            Overloaded: all places are taken.
            DeadlineExceeded: the time is over.
        """
        if self.taken >= self.places:
            raise Overloaded(f"{self.places} requests are under way, which is the limit: try later")
        self.taken += 1
        visit = Visit(self)
        try:
            async with asyncio.timeout(self.seconds):
                yield visit
        except TimeoutError as exc:
            raise DeadlineExceeded(f"not answered within {self.seconds:g} s, which is the limit") from exc
        finally:
            self._leave(visit)

    def close(self) -> None:
        self.worker.shutdown(wait=False, cancel_futures=True)

    def _leave(self, visit: Visit) -> None:
        """Give the place back: a computation cannot be stopped, so it keeps its place to its end."""
        if visit.running is None or visit.running.done():
            self.taken -= 1
            return
        loop = asyncio.get_running_loop()
        visit.running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free))

    def _free(self) -> None:
        self.taken -= 1

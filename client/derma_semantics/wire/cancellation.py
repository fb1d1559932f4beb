"""Lets one thread end what others wait for.

scope = Scope()
pool.submit(copy_context().run, scope.call, work, item)     # work waits within `under_way`
scope.cancel()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Scope:
    """Some calls that end together."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._cancels: set[Callable[[], object]] = set()

    def call(self, work: Callable[[T], R], item: T) -> R:
        """Run ``work``, in a context of its own; what it waits for belongs to this scope."""
        _current.set(self)
        return work(item)

    def cancel(self) -> None:
        """End what is under way, and what would begin."""
        with self._lock:
            self.cancelled.set()
            cancels = list(self._cancels)
        for cancel in cancels:
            cancel()

    @contextmanager
    def holding(self, cancel: Callable[[], object]) -> Iterator[None]:
        with self._lock:
            self._cancels.add(cancel)
            late = self.cancelled.is_set()
        try:
            if late:
                raise CancelledError
            yield
        finally:
            with self._lock:
                self._cancels.discard(cancel)


_current: ContextVar[Scope | None] = ContextVar("scope", default=None)


@contextmanager
def under_way(cancel: Callable[[], object]) -> Iterator[None]:
    """Wait within: another thread's ``Scope.cancel``, or an exception here, calls ``cancel``."""
    scope = _current.get()
    try:
        if scope is None:
            yield
        else:
            with scope.holding(cancel):
                yield
    except BaseException:
        cancel()
        raise


def pause(seconds: float) -> None:
    """Sleep, unless cancelled."""
    if (scope := _current.get()) is None:
        time.sleep(seconds)
    elif scope.cancelled.wait(seconds):
        raise CancelledError

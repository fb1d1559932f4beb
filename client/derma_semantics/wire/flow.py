"""Work on many items, a few at a time, in order.

    for item, outcome in in_order(work, items, 16): ...            # outcome: work(item), or its error

Items are pulled as places get free, so at no time more than ``in_flight`` are held. An error of one item
stands in its place; an error of the source ends the iteration. Closing the iterator cancels the rest.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
)
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from derma_semantics.wire.cancellation import Scope

T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_END: Any = object()


class _Done(Protocol[R_co]):
    def result(self) -> R_co: ...


def in_order(
    work: Callable[[T], R], items: Iterable[T], in_flight: int
) -> Generator[tuple[T, R | Exception], None, None]:
    """With threads; ``items`` is pulled in the caller's.

    Raises:
        ValueError: ``in_flight`` is below 1.
    """
    _check(in_flight)
    return _in_order(work, items, in_flight)


def in_order_async(
    work: Callable[[T], Awaitable[R]], items: Iterable[T] | AsyncIterable[T], in_flight: int
) -> AsyncGenerator[tuple[T, R | Exception], None]:
    """With tasks; ``items`` is pulled in the event loop.

    Raises:
        ValueError: ``in_flight`` is below 1.
    """
    _check(in_flight)
    return _in_order_async(work, items, in_flight)


def _in_order(
    work: Callable[[T], R], items: Iterable[T], in_flight: int
) -> Generator[tuple[T, R | Exception], None, None]:
    waiting: deque[tuple[T, Future[R]]] = deque()
    scope, pool = Scope(), ThreadPoolExecutor(in_flight, "derma")
    try:
        for item in items:
            waiting.append((item, pool.submit(copy_context().run, scope.call, work, item)))
            # One for one: the window stays as large as the service needs it.
            if len(waiting) == in_flight or waiting[0][1].done():
                first, done = waiting.popleft()
                yield first, _outcome(done)
        for item, done in waiting:
            yield item, _outcome(done)
    finally:
        scope.cancel()
        pool.shutdown(cancel_futures=True)


async def _in_order_async(
    work: Callable[[T], Awaitable[R]], items: Iterable[T] | AsyncIterable[T], in_flight: int
) -> AsyncGenerator[tuple[T, R | Exception], None]:
    waiting: deque[tuple[T, asyncio.Task[R]]] = deque()
    source, pull, more = _each(items), None, True
    try:
        while more or waiting:
            if more and pull is None and len(waiting) < in_flight:
                pull = asyncio.create_task(_next(source))
            head = waiting[0][1] if waiting else None
            await asyncio.wait({task for task in (pull, head) if task}, return_when=asyncio.FIRST_COMPLETED)
            if pull and pull.done():
                item, pull = pull.result(), None
                if more := item is not _END:
                    waiting.append((item, asyncio.ensure_future(work(item))))
            if head and head.done():
                item, done = waiting.popleft()
                yield item, _outcome(done)
    finally:
        tasks = [task for _, task in waiting] + ([pull] if pull else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _check(in_flight: int) -> None:
    if in_flight < 1:
        raise ValueError(f"in_flight must be at least 1, got {in_flight}")


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source, _END)


def _outcome(done: _Done[R]) -> R | Exception:
    try:
        return done.result()
    except Exception as exc:
        _forget(exc)
        return exc


def _forget(error: BaseException | None) -> None:
    """Free what an error's frames hold: a caller who keeps errors would keep the images."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__

"""One interface to every service under load.

    async with derma("127.0.0.1:8001") as send:
        await send(jpeg)                # raises what the service's failure raises

A load generator knows nothing else of a service.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import httpx

from derma_bench.load.loops import TIMEOUT, Send
from derma_semantics import AsyncDermaClient

# Connections belong to an event loop, so each measurement makes its own.
Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Send]]


@asynccontextmanager
async def derma(url: str) -> AsyncIterator[Send]:
    """A connection to our service at a gRPC address, through the project's own client, as users do."""
    async with AsyncDermaClient(url, timeout=TIMEOUT, retry_for=0) as client:
        yield client.classify


def jpeg_body(image: bytes) -> dict[str, Any]:
    """The image itself as the request's body."""
    return {"content": image, "headers": {"Content-Type": "image/jpeg"}}


def unchecked(answer: httpx.Response) -> None:
    """Take every answer of status 200 for right."""


@asynccontextmanager
async def http(
    url: str,
    request: Callable[[bytes], dict[str, Any]] = jpeg_body,
    check: Callable[[httpx.Response], None] = unchecked,
    **options: Any,
) -> AsyncIterator[Send]:
    """Connections to an HTTP service, kept alive, as many as requests are in flight.

    Args:
        request: httpx's arguments that carry an image.
        check: raises for an answer that is wrong.
        options: of ``httpx.AsyncClient``.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False, **options) as client:

        async def send(image: bytes) -> httpx.Response:
            answer = await client.post(url, **request(image))
            answer.raise_for_status()
            check(answer)
            return answer

        yield send

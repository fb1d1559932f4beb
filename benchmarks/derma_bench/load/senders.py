"""One interface to every service under load.

    async with derma("127.0.0.1:8001") as sender:
        await sender.send(jpeg)         # raises what the service's failure raises

A load generator knows nothing else of a service.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeAlias

import httpx

from derma_semantics import AsyncDermaClient

TIMEOUT = 60.0


class Sender(Protocol):
    """Sends one image and returns when it is answered; gives up after ``TIMEOUT`` seconds."""

    async def send(self, image: bytes) -> None: ...


# Connections belong to an event loop, so each measurement makes its own.
Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[Sender]]
Request: TypeAlias = Callable[[bytes], dict[str, Any]]


class DermaSender:
    """Through the project's own client, as users do."""

    def __init__(self, client: AsyncDermaClient) -> None:
        self._client = client

    async def send(self, image: bytes) -> None:
        await self._client.classify(image)


class HttpSender:
    """POST to one address.

    Args:
        request: httpx's arguments that carry an image.
    """

    def __init__(self, client: httpx.AsyncClient, url: str, request: Request) -> None:
        self._client, self._url, self._request = client, url, request

    async def send(self, image: bytes) -> None:
        answer = await self._client.post(self._url, **self._request(image))
        answer.raise_for_status()


@asynccontextmanager
async def derma(url: str) -> AsyncIterator[Sender]:
    """A connection to our service.

    Args:
        url: host and gRPC port.
    """
    async with AsyncDermaClient(url, timeout=TIMEOUT, retry_for=0) as client:
        yield DermaSender(client)


def jpeg_body(image: bytes) -> dict[str, Any]:
    """The image itself as the request's body."""
    return {"content": image, "headers": {"Content-Type": "image/jpeg"}}


@asynccontextmanager
async def http(url: str, request: Request = jpeg_body) -> AsyncIterator[Sender]:
    """Connections to an HTTP service, kept alive, as many as requests are under way."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False) as client:
        yield HttpSender(client, url, request)


def kind(failure: BaseException) -> str:
    """The name under which a failure is counted."""
    if isinstance(failure, httpx.HTTPStatusError):
        return f"HTTP {failure.response.status_code}"
    return type(failure).__name__

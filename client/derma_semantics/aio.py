"""Classify images from asyncio.

async with AsyncDermaClient("127.0.0.1:8001") as client:
    diagnoses = await client.classify(["a.jpg", "b.jpg"])
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Literal, overload

from tenacity import AsyncRetrying

from derma_semantics.base import (
    IN_FLIGHT,
    BaseClient,
    Images,
    T,
    check_one,
    check_question,
    digest_of,
    identified,
    kept,
    left,
)
from derma_semantics.domain.diagnosis import Diagnosis, ServedBundle, from_outputs
from derma_semantics.domain.errors import DermaError
from derma_semantics.imaging.images import ImageLike, encoded
from derma_semantics.saliency import Explanation, HttpSaliency
from derma_semantics.wire import tracing
from derma_semantics.wire.connection import TLS, Address
from derma_semantics.wire.defaults import (
    DEFAULT_RETRY_FOR,
    DEFAULT_SALIENCY_URL,
    DEFAULT_TIMEOUT,
    DEFAULT_URL,
)
from derma_semantics.wire.flow import in_order_async
from derma_semantics.wire.transport import AsyncTransport, GrpcAsyncTransport, Outputs


class AsyncDermaClient(BaseClient):
    """The asyncio twin of ``DermaClient``, with the same arguments and errors.

    Cancelling a task cancels its request, also in the server's queue.
    """

    def __init__(
        self,
        url: Address = DEFAULT_URL,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retry_for: float = DEFAULT_RETRY_FOR,
        tls: TLS | None = None,
        token: str | None = None,
        saliency_url: str = DEFAULT_SALIENCY_URL,
        transport: AsyncTransport | None = None,
        saliency: HttpSaliency | None = None,
    ) -> None:
        super().__init__(timeout, retry_for, tls, token, saliency_url, saliency)
        self._transport = transport or GrpcAsyncTransport(url, tls=tls, token=token)

    @overload
    async def classify(
        self, image: ImageLike, *, timeout: float | None = None, request_id: str | None = None
    ) -> Diagnosis: ...
    @overload
    async def classify(self, image: Images, *, timeout: float | None = None) -> list[Diagnosis]: ...
    @overload
    async def classify(
        self, image: Images, *, timeout: float | None = None, return_exceptions: Literal[True]
    ) -> list[Diagnosis | Exception]: ...

    async def classify(
        self,
        image: ImageLike | Images,
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
        request_id: str | None = None,
    ) -> Diagnosis | list[Diagnosis] | list[Diagnosis | Exception]:
        """Classify one image, or a list of them at once; see ``DermaClient.classify``."""
        check_one(image, request_id)
        if not isinstance(image, (list, tuple)):
            return await self._classify(image, timeout, request_id)
        async with aclosing(self.classify_many(image, timeout=timeout)) as answers:
            return [kept(answer, return_exceptions) async for _, answer in answers]

    def classify_many(
        self,
        images: Iterable[T] | AsyncIterable[T],
        *,
        in_flight: int = IN_FLIGHT,
        timeout: float | None = None,
    ) -> AsyncGenerator[tuple[T, Diagnosis | Exception], None]:
        """Classify any number of images, in order; see ``DermaClient.classify_many``.

        ``images`` may be asynchronous. Where the iteration may end early, put it into
        ``contextlib.aclosing``, so that what is under way is cancelled at once.
        """
        return in_order_async(lambda image: self._classify(image, timeout), images, in_flight)

    async def explain(
        self,
        image: ImageLike,
        prompt: str | None = None,
        *,
        condition: str | None = None,
        method: str | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Explanation:
        """Explain an image for a text; see ``DermaClient.explain``."""
        check_question(prompt, condition)
        end = self._end(timeout)
        with identified(request_id) as known:
            data = await asyncio.to_thread(encoded, image)
            arguments = (data, prompt, condition, method, known, end)
            return await AsyncRetrying(**self._policy(end))(asyncio.to_thread, self._explain, *arguments)

    async def saliency_methods(self, *, timeout: float = 5.0) -> dict[str, str]:
        """The methods that ``explain`` may ask for; see ``DermaClient.saliency_methods``."""
        return await asyncio.to_thread(self._saliency.methods, timeout)

    async def ready(self, *, timeout: float = 5.0) -> bool:
        """Check readiness once, for at most ``timeout`` seconds."""
        return await self._transport.ready(timeout)

    async def bundle(self, *, timeout: float = 5.0) -> ServedBundle:
        """The weights that the service serves now; see ``DermaClient.bundle``."""
        return ServedBundle.from_network(await self._transport.network(timeout))

    async def close(self) -> None:
        """End the connections, and what other tasks have under way."""
        await self._transport.close()
        self._close_saliency()

    async def __aenter__(self) -> AsyncDermaClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _classify(
        self, image: ImageLike, timeout: float | None, request_id: str | None = None
    ) -> Diagnosis:
        end = self._end(timeout)
        with tracing.span("derma.classify") as span, identified(request_id) as known:
            span.set_attribute("derma.request.id", known)
            data = await asyncio.to_thread(encoded, image)
            outputs: Outputs = await AsyncRetrying(**self._policy(end))(self._infer, data, end, known)
            digest = digest_of(outputs)
            span.set_attribute("derma.bundle.digest", digest)
            if digest not in self._bundles:
                with suppress(DermaError):
                    served = await self.bundle(timeout=left(end))
                    self._bundles[served.digest] = served
        return from_outputs(outputs, self._served(digest), known)

    async def _infer(self, data: bytes, end: float, request_id: str) -> Outputs:
        return await self._transport.infer(data, left(end), request_id)

"""Classify images with a running service.

    with DermaClient("127.0.0.1:8001") as client:
        diagnosis = client.classify("lesion.jpg")
        print(diagnosis.top.condition.name, diagnosis.triage)

``AsyncDermaClient`` is the same for asyncio. Images travel encoded, as they are.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, TypeAlias, overload

import numpy as np

from derma_semantics.contract import PARAMETERS
from derma_semantics.diagnosis import Diagnosis, ServedBundle, from_outputs
from derma_semantics.errors import DeadlineExceeded, DermaError
from derma_semantics.images import ImageLike, encoded
from derma_semantics.transport import (
    AsyncTransport,
    GrpcAsyncTransport,
    GrpcTransport,
    Outputs,
    Transport,
)

DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_TIMEOUT = 30.0
IN_FLIGHT = 16

Images: TypeAlias = "list[Any] | tuple[Any, ...]"


class DermaClient:
    """A connection to the service; safe to share between threads.

    Args:
        url: host and gRPC port.
        timeout: seconds that one image may take, unless a call says otherwise.
        transport: replaces the gRPC connection, for tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        transport: Transport | None = None,
    ) -> None:
        self.timeout = timeout
        self._transport = transport or GrpcTransport(url)
        self._bundles: dict[str, ServedBundle] = {}

    @overload
    def classify(self, image: ImageLike, *, timeout: float | None = None) -> Diagnosis: ...
    @overload
    def classify(self, image: Images, *, timeout: float | None = None) -> list[Diagnosis]: ...
    @overload
    def classify(
        self,
        image: Images,
        *,
        timeout: float | None = None,
        return_exceptions: Literal[True],
    ) -> list[Diagnosis | Exception]: ...

    def classify(
        self,
        image: ImageLike | Images,
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> Diagnosis | list[Diagnosis] | list[Diagnosis | Exception]:
        """Classify one image, or a list of them at once.

        Args:
            image: a path, encoded bytes, Pillow image, or uint8 array of shape (H, W, 3) or
                (H, W); or a list of these, of which 16 are under way at a time.
            timeout: seconds an image, everything included, from when its turn comes.
            return_exceptions: for a list, put what failed in its place instead of raising
                the first failure, as ``asyncio.gather`` does.

        Raises:
            InvalidImage: the image cannot be classified; the message says why.
            ServiceUnavailable, Overloaded, DeadlineExceeded, ServiceError: see ``errors``.
            OSError: a path cannot be read.
        """
        if not isinstance(image, (list, tuple)):
            return self._classify(image, timeout)
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            futures = [pool.submit(self._classify, one, timeout) for one in image]
            try:
                return [_outcome(future, return_exceptions) for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def ready(self, *, timeout: float = 5.0) -> bool:
        """Whether the service can answer now."""
        return self._transport.ready(timeout)

    def bundle(self, *, timeout: float = 5.0) -> ServedBundle:
        """Which weights the service serves now."""
        return _served(self._transport.network(timeout))

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> DermaClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _classify(self, image: ImageLike, timeout: float | None) -> Diagnosis:
        end = time.monotonic() + (self.timeout if timeout is None else timeout)
        data = encoded(image)
        outputs = self._transport.infer(data, _left(end))
        return from_outputs(outputs, self._bundle_of(_digest(outputs), end))

    def _bundle_of(self, digest: str, end: float) -> ServedBundle:
        """What the service says of ``digest``; the bare digest where it does not say."""
        if digest not in self._bundles:
            with suppress(DermaError):  # the answer counts, also when its name cannot be had
                served = self.bundle(timeout=_left(end))
                self._bundles[served.digest] = served
        return self._bundles.get(digest, ServedBundle(digest))


class AsyncDermaClient:
    """The asyncio twin of ``DermaClient``, with the same arguments and errors."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        transport: AsyncTransport | None = None,
    ) -> None:
        self.timeout = timeout
        self._transport = transport or GrpcAsyncTransport(url)
        self._bundles: dict[str, ServedBundle] = {}

    @overload
    async def classify(self, image: ImageLike, *, timeout: float | None = None) -> Diagnosis: ...
    @overload
    async def classify(self, image: Images, *, timeout: float | None = None) -> list[Diagnosis]: ...
    @overload
    async def classify(
        self,
        image: Images,
        *,
        timeout: float | None = None,
        return_exceptions: Literal[True],
    ) -> list[Diagnosis | Exception]: ...

    async def classify(
        self,
        image: ImageLike | Images,
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
    ) -> Diagnosis | list[Diagnosis] | list[Diagnosis | Exception]:
        """Classify one image, or a list of them at once; see ``DermaClient.classify``."""
        if not isinstance(image, (list, tuple)):
            return await self._classify(image, timeout)
        places = asyncio.Semaphore(IN_FLIGHT)

        async def one(item: ImageLike) -> Diagnosis:
            async with places:
                return await self._classify(item, timeout)

        tasks = [asyncio.create_task(one(item)) for item in image]
        try:
            return await asyncio.gather(*tasks, return_exceptions=return_exceptions)  # type: ignore[return-value]
        finally:
            for task in tasks:
                task.cancel()

    async def ready(self, *, timeout: float = 5.0) -> bool:
        """Whether the service can answer now."""
        return await self._transport.ready(timeout)

    async def bundle(self, *, timeout: float = 5.0) -> ServedBundle:
        """Which weights the service serves now."""
        return _served(await self._transport.network(timeout))

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> AsyncDermaClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _classify(self, image: ImageLike, timeout: float | None) -> Diagnosis:
        end = time.monotonic() + (self.timeout if timeout is None else timeout)
        data = await asyncio.to_thread(encoded, image)
        outputs = await self._transport.infer(data, _left(end))
        return from_outputs(outputs, await self._bundle_of(_digest(outputs), end))

    async def _bundle_of(self, digest: str, end: float) -> ServedBundle:
        if digest not in self._bundles:
            with suppress(DermaError):
                served = await self.bundle(timeout=_left(end))
                self._bundles[served.digest] = served
        return self._bundles.get(digest, ServedBundle(digest))


def _outcome(future: Future[Diagnosis], return_exceptions: bool) -> Diagnosis | Exception:
    try:
        return future.result()
    except Exception as exc:
        if return_exceptions:
            return exc
        raise


def _left(end: float) -> float:
    """Seconds until ``end``.

    Raises:
        DeadlineExceeded: none are left.
    """
    if (seconds := end - time.monotonic()) <= 0:
        raise DeadlineExceeded("the time for this image was over before it was answered")
    return seconds


def _digest(outputs: Outputs) -> str:
    return bytes(outputs["BUNDLE"].astype(np.uint8)).hex()


def _served(network: dict[str, str]) -> ServedBundle:
    name, digest, _, precision = (network.get(key, "") for key in PARAMETERS)
    return ServedBundle(digest, name, precision, network["version"])

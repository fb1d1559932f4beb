"""Classify images with a running service.

    with DermaClient("127.0.0.1:8001") as client:
        diagnosis = client.classify("lesion.jpg")
        print(diagnosis.top.condition.name, diagnosis.triage)

Images travel encoded, as they are. For asyncio, see ``aio``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing, suppress
from types import TracebackType
from typing import Literal, overload

from tenacity import Retrying

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
from derma_semantics.wire.cancellation import pause
from derma_semantics.wire.connection import TLS, Address
from derma_semantics.wire.defaults import (
    DEFAULT_RETRY_FOR,
    DEFAULT_SALIENCY_URL,
    DEFAULT_TIMEOUT,
    DEFAULT_URL,
)
from derma_semantics.wire.flow import in_order
from derma_semantics.wire.transport import GrpcTransport, Outputs, Transport

__all__ = [
    "DEFAULT_SALIENCY_URL",
    "DEFAULT_TIMEOUT",
    "DEFAULT_URL",
    "IN_FLIGHT",
    "TLS",
    "DermaClient",
]


class DermaClient(BaseClient):
    """A connection to the service. Threads may share it, and so may processes forked between calls.

    Args:
        url: host and gRPC port. Several, as a list or separated by commas, take turns, and so do
            all addresses of a DNS name; those that do not answer are passed over.
        timeout: seconds that one image may take, unless a call says otherwise.
        retry_for: for so many of these seconds, an image that finds no server, a model that reloads
            or a full queue is tried again, after waits that grow to 2 s; 0: never.
        tls: encrypts the connection, also that to a sidecar at an ``https`` address; default: plaintext.
        token: sent with every call as ``authorization: Bearer ...``; in plaintext only to this machine.
        saliency_url: the sidecar that ``explain`` asks.
        transport: replaces the gRPC connection, for tests.
        saliency: replaces the connection to the sidecar, for tests.

    Raises:
        ValueError: an address that is none, or a token that would travel in plaintext.
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
        transport: Transport | None = None,
        saliency: HttpSaliency | None = None,
    ) -> None:
        super().__init__(timeout, retry_for, tls, token, saliency_url, saliency)
        self._transport = transport or GrpcTransport(url, tls=tls, token=token)

    @overload
    def classify(
        self, image: ImageLike, *, timeout: float | None = None, request_id: str | None = None
    ) -> Diagnosis: ...
    @overload
    def classify(self, image: Images, *, timeout: float | None = None) -> list[Diagnosis]: ...
    @overload
    def classify(
        self, image: Images, *, timeout: float | None = None, return_exceptions: Literal[True]
    ) -> list[Diagnosis | Exception]: ...

    def classify(
        self,
        image: ImageLike | Images,
        *,
        timeout: float | None = None,
        return_exceptions: bool = False,
        request_id: str | None = None,
    ) -> Diagnosis | list[Diagnosis] | list[Diagnosis | Exception]:
        """Classify one image, or a list of them at once.

        Args:
            image: a path, encoded bytes, Pillow image, or uint8 array of shape (H, W, 3) or
                (H, W); or a list of these, of which 16 are under way at a time.
            timeout: seconds an image, everything included, from when its turn comes.
            return_exceptions: for a list, put what failed in its place instead of raising
                the first failure, as ``asyncio.gather`` does.
            request_id: the caller's own, of 1 to 64 letters, digits and ``._@:-``, for one image; it is
                logged, so it must say nothing of a patient. Default: drawn for each image.

        Raises:
            InvalidImage: the image cannot be classified; the message says why.
            ServiceUnavailable, Overloaded: no answer, though it was tried for ``retry_for`` seconds.
            DeadlineExceeded, ServiceError, InvalidRequest: see ``errors``.
            OSError: a path cannot be read.
            TypeError, ValueError: no image, or an array of another type or shape.
        """
        check_one(image, request_id)
        if not isinstance(image, (list, tuple)):
            return self._classify(image, timeout, request_id)
        with closing(self.classify_many(image, timeout=timeout)) as answers:
            return [kept(answer, return_exceptions) for _, answer in answers]

    def classify_many(
        self, images: Iterable[T], *, in_flight: int = IN_FLIGHT, timeout: float | None = None
    ) -> Generator[tuple[T, Diagnosis | Exception], None, None]:
        """Classify any number of images, in order, holding only a few at a time.

        Args:
            images: what ``classify`` takes, pulled one by one as places get free.
            in_flight: how many images are under way, or answered and not yet taken, at most.
            timeout: seconds an image, from when its turn comes.

        Yields:
            Each image with its diagnosis, or with what ``classify`` would have raised: one bad image
            does not end the others.

        What ``images`` itself raises ends the iteration. Leaving it early, by ``close()`` or by an error,
        cancels what is under way.

        Raises:
            ValueError: ``in_flight`` is below 1.
        """
        return in_order(lambda image: self._classify(image, timeout), images, in_flight)

    def explain(
        self,
        image: ImageLike,
        prompt: str | None = None,
        *,
        condition: str | None = None,
        method: str | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Explanation:
        """Ask the saliency sidecar which pixels speak for a text, against the other conditions.

        Args:
            image: as for ``classify``.
            prompt: any text; or
            condition: a condition's code, such as ``"MEL"``.
            method: how relevance is computed; default: the sidecar's.
            timeout: seconds, everything included.
            request_id: as for ``classify``.

        Raises:
            ValueError: not exactly one of ``prompt`` and ``condition``.
            DermaError, OSError: as for ``classify``.
        """
        check_question(prompt, condition)
        end = self._end(timeout)
        with identified(request_id) as known:
            data = encoded(image)
            retrying = Retrying(sleep=pause, **self._policy(end))
            return retrying(self._explain, data, prompt, condition, method, known, end)

    def saliency_methods(self, *, timeout: float = 5.0) -> dict[str, str]:
        """The methods that ``explain`` may ask for, and what a person calls them; the default comes first.

        Raises:
            ServiceUnavailable, DeadlineExceeded, ServiceError: see ``errors``.
        """
        return self._saliency.methods(timeout)

    def ready(self, *, timeout: float = 5.0) -> bool:
        """Check readiness once, for at most ``timeout`` seconds."""
        return self._transport.ready(timeout)

    def bundle(self, *, timeout: float = 5.0) -> ServedBundle:
        """The weights that the service serves now. One request, for at most ``timeout`` seconds.

        Raises:
            ServiceUnavailable, DeadlineExceeded, ServiceError, AccessDenied: see ``errors``.
        """
        return ServedBundle.from_network(self._transport.network(timeout))

    def close(self) -> None:
        """End the connections, and with them what other threads have under way."""
        self._transport.close()
        self._close_saliency()

    def __enter__(self) -> DermaClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _classify(self, image: ImageLike, timeout: float | None, request_id: str | None = None) -> Diagnosis:
        end = self._end(timeout)
        with tracing.span("derma.classify") as span, identified(request_id) as known:
            span.set_attribute("derma.request.id", known)
            data = encoded(image)
            outputs = Retrying(sleep=pause, **self._policy(end))(self._infer, data, end, known)
            digest = digest_of(outputs)
            span.set_attribute("derma.bundle.digest", digest)
            if digest not in self._bundles:
                with suppress(DermaError):  # the answer counts, also when its name cannot be had
                    served = self.bundle(timeout=left(end))
                    self._bundles[served.digest] = served
        return from_outputs(outputs, self._served(digest), known)

    def _infer(self, data: bytes, end: float, request_id: str) -> Outputs:
        return self._transport.infer(data, left(end), request_id)

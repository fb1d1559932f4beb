"""The part that both clients share: deadlines, names of bundles, the sidecar."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import numpy as np

from derma_semantics.domain.diagnosis import Diagnosis, ServedBundle
from derma_semantics.domain.errors import DeadlineExceeded, DermaError
from derma_semantics.imaging.images import ImageLike
from derma_semantics.saliency import Explanation, HttpSaliency
from derma_semantics.wire.connection import TLS, Host, check_token
from derma_semantics.wire.request_id import check as check_request_id
from derma_semantics.wire.request_id import new
from derma_semantics.wire.retry import policy
from derma_semantics.wire.transport import Outputs

log = logging.getLogger("derma_semantics")

IN_FLIGHT = 16

Images: TypeAlias = list[Any] | tuple[Any, ...]
T = TypeVar("T", bound=ImageLike)


class BaseClient:
    """The part without input and output."""

    def __init__(
        self,
        timeout: float,
        retry_for: float,
        tls: TLS | None,
        token: str | None,
        saliency_url: str,
        saliency: HttpSaliency | None,
    ) -> None:
        self.timeout = timeout
        self.retry_for = retry_for
        self._bundles: dict[str, ServedBundle] = {}
        self._tls, self._token, self._saliency_url = tls, token, saliency_url
        if saliency is not None:
            self._saliency = saliency

    @cached_property
    def _saliency(self) -> HttpSaliency:
        if self._token is not None:
            url = urlsplit(self._saliency_url)
            check_token(
                self._token, [Host(url.hostname or "", url.port or 80)], encrypted=url.scheme == "https"
            )
        return HttpSaliency(self._saliency_url, self._token, self._tls)

    def _close_saliency(self) -> None:
        if "_saliency" in vars(self):
            self._saliency.close()

    def _end(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    def _policy(self, end: float) -> dict[str, Any]:
        return policy(min(self.retry_for, left(end)))

    def _explain(
        self,
        data: bytes,
        prompt: str | None,
        condition: str | None,
        method: str | None,
        request_id: str,
        end: float,
    ) -> Explanation:
        return self._saliency.explain(
            data,
            prompt=prompt,
            condition=condition,
            method=method,
            timeout=left(end),
            request_id=request_id,
        )

    def _served(self, digest: str) -> ServedBundle:
        """The bundle that the service named with ``digest``; the bare digest where it named none."""
        return self._bundles.get(digest, ServedBundle(digest))


@contextmanager
def identified(request_id: str | None) -> Iterator[str]:
    """One request: yield its id, a new one for None; errors carry it, and the log has the outcome.

    Raises:
        ValueError: the id is invalid; see ``request_id.check``.
    """
    known = new() if request_id is None else check_request_id(request_id)
    try:
        yield known
    except DermaError as exc:
        exc.request_id = known
        log.info("failed: %s", type(exc).__name__, extra={"request_id": known})
        raise
    log.info("answered", extra={"request_id": known})


def check_one(image: object, request_id: str | None) -> None:
    """Refuse a request id for a list: each of its images has its own."""
    if request_id is not None and isinstance(image, (list, tuple)):
        raise ValueError("a request id names one image, not a list of them")


def kept(answer: Diagnosis | Exception, return_exceptions: bool) -> Any:
    """An error is raised, unless it shall stand in its place."""
    if isinstance(answer, Exception) and not return_exceptions:
        raise answer
    return answer


def left(end: float) -> float:
    """Seconds until ``end``.

    Raises:
        DeadlineExceeded: none are left.
    """
    if (seconds := end - time.monotonic()) <= 0:
        raise DeadlineExceeded("deadline exceeded before the image was answered")
    return seconds


def digest_of(outputs: Outputs) -> str:
    return bytes(outputs["BUNDLE"].astype(np.uint8)).hex()


def check_question(prompt: str | None, condition: str | None) -> None:
    if (prompt is None) == (condition is None):
        raise ValueError("give either a prompt or a condition")

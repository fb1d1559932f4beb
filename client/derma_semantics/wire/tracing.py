"""Spans and trace headers, where opentelemetry-api is installed; nothing otherwise.

    with span("derma.classify") as current:
        current.set_attribute("derma.bundle.digest", digest)

Spans say which service, which weights and what kind of error, never what was in an image, what it was
called or what was found: an error's message may name a file, so it is not recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, Protocol

INTERNAL, CLIENT = "INTERNAL", "CLIENT"


class Span(Protocol):
    """The used part of OpenTelemetry's span."""

    def set_attribute(self, key: str, value: str) -> None: ...


class _NoSpan:
    def set_attribute(self, key: str, value: str) -> None:
        pass


@contextmanager
def span(name: str, attributes: Mapping[str, str] | None = None, kind: str = INTERNAL) -> Iterator[Span]:
    """A span around the block, the current one meanwhile; an error marks it with its class."""
    if (trace := _trace()) is None:
        yield _NoSpan()
        return
    with trace.get_tracer("derma_semantics").start_as_current_span(
        name,
        kind=trace.SpanKind[kind],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as exc:
            current.set_attribute("error.type", type(exc).__name__)
            current.set_status(trace.StatusCode.ERROR)
            raise


def headers() -> dict[str, str]:
    """Metadata that makes the service's spans children of the current one: W3C ``traceparent``."""
    carrier: dict[str, str] = {}
    if _trace() is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # Not the global propagator: what else the caller's program carries is nobody's business.
        TraceContextTextMapPropagator().inject(carrier)
    return carrier


@cache
def _trace() -> ModuleType | Any:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace

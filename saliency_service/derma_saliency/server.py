"""Runs the sidecar until SIGTERM or SIGINT, then lets what is under way end.

serve(explainer, Address("127.0.0.1", 8003), Limits(), AsyncDermaClient("127.0.0.1:8001"))
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from types import FrameType

import uvicorn

from derma_saliency.app import Limits, create_app
from derma_saliency.explainer import Explainer
from derma_saliency.readiness import Served
from derma_semantics import AsyncDermaClient
from derma_semantics.diagnosis import ServedBundle

# Open connections of all kinds, also of those that have asked nothing yet.
CONNECTIONS = 256
TRITON_SECONDS = 2.0


@dataclass(frozen=True)
class Address:
    """Where the sidecar listens."""

    host: str
    port: int


def serve(
    explainer: Explainer,
    address: Address,
    limits: Limits,
    triton: AsyncDermaClient | None,
    token: str | None = None,
) -> None:
    """Serve; ends the process with 0 after a signal.

    Args:
        triton: whose bundle ``/readyz`` compares with; None to compare with none.
        token: what callers must show; None: anyone may ask.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)  # uvicorn ends in order, then raises the signal again
    uvicorn.run(
        create_app(explainer, limits, _served(triton), token),
        host=address.host,
        port=address.port,
        access_log=False,
        log_config=None,  # its messages join ours
        log_level="info",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=round(limits.seconds) + 1,
    )


def _served(triton: AsyncDermaClient | None) -> Served | None:
    if triton is None:
        return None

    async def ask() -> ServedBundle:
        return await triton.bundle(timeout=TRITON_SECONDS)

    return ask


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(0)

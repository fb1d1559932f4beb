"""Runs the sidecar until SIGTERM or SIGINT, then finishes the requests in flight.

serve(Explainer.from_bundle(bundle, "cpu"), Address("127.0.0.1", 8003), Limits(), None)
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

import torch
import uvicorn

from derma_saliency.app import Limits, create_app
from derma_saliency.explainer import Explainer, best_device
from derma_saliency.prefork import supervise
from derma_saliency.readiness import Served
from derma_semantics import AsyncDermaClient
from derma_semantics.domain.diagnosis import ServedBundle

# Open connections of all kinds, idle ones included.
CONNECTIONS = 256
TRITON_SECONDS = 2.0
LAST = 4.0  # seconds for its end, once nothing is in flight


@dataclass(frozen=True)
class Address:
    """Host and port of the listener."""

    host: str
    port: int


def serve(
    explainer: Explainer,
    address: Address,
    limits: Limits,
    triton: AsyncDermaClient | None,
    token: str | None = None,
    threads: int | None = None,
) -> None:
    """Serve until a signal, in a process of its own that is replaced when it is killed.

    Args:
        explainer: on the CPU; the process that serves moves it to a GPU where there is one.
        triton: whose bundle ``/readyz`` compares with; None to compare with none.
        token: required of callers; None: no authentication.
        threads: of the network; None: all cores.

    Raises:
        OSError: it cannot listen there.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.create_server((address.host, address.port), family=family, backlog=CONNECTIONS)
    graceful = round(limits.seconds) + 1

    def work() -> None:
        if threads:
            torch.set_num_threads(threads)
        app = create_app(explainer.to(best_device()), limits, _served(triton), token)
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,  # its messages join ours
            log_level="info",
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=graceful,
        )
        uvicorn.Server(config).run(sockets=[listener])

    supervise(work, listener, graceful + LAST)


def _served(triton: AsyncDermaClient | None) -> Served | None:
    if triton is None:
        return None

    async def ask() -> ServedBundle:
        return await triton.bundle(timeout=TRITON_SECONDS)

    return ask

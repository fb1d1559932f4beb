"""Readiness: compares the bundle that Triton serves with the one that the sidecar explains.

readiness = Readiness(explainer, served=client.bundle)      # client: an AsyncDermaClient
status, report = await readiness.check()
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from derma_saliency.explainer import Explainer
from derma_saliency.methods import DEFAULT, METHODS
from derma_semantics.domain.diagnosis import ServedBundle
from derma_semantics.domain.errors import DermaError

Served = Callable[[], Awaitable[ServedBundle]]
# A probe a second need not be a call of Triton's each.
FRESH = 1.0


class Readiness:
    """Compares digests.

    Args:
        served: reads Triton's bundle; None where no Triton is given.
    """

    def __init__(self, explainer: Explainer, served: Served | None) -> None:
        self._served = served
        self._about = {
            "bundle": explainer.name,
            "bundle_digest": explainer.digest,
            "device": explainer.device,
            "methods": list(METHODS),
            "method_labels": {name: method.label for name, method in METHODS.items()},
            "default_method": DEFAULT,
        }
        self._digest = explainer.digest
        self._last: tuple[float, tuple[int, dict[str, Any]]] | None = None

    async def check(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and report: 503 where Triton serves other weights.

        A Triton that does not answer leaves the sidecar ready: it needs none to explain.
        """
        if self._last is None or time.monotonic() - self._last[0] > FRESH:
            status, verdict = await self._compared()
            self._last = time.monotonic(), (status, {"ready": status == 200, **self._about, **verdict})
        return self._last[1]

    async def _compared(self) -> tuple[int, dict[str, Any]]:
        if self._served is None:
            return 200, {"triton": "not given"}
        try:
            served = await self._served()
        except DermaError as exc:
            return 200, {"triton": "no answer", "message": f"the digests were not compared: {exc}"}
        if served.digest == self._digest:
            return 200, {"triton": "same", "triton_digest": served.digest}
        message = (
            f"Triton serves bundle {served.digest[:12]}, the sidecar explains {self._digest[:12]}: "
            "restart it with the bundle that is served"
        )
        return 503, {"triton": "differs", "triton_digest": served.digest, "message": message}

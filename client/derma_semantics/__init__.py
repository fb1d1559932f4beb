"""Client of the Derma-Semantics service.

    from derma_semantics import DermaClient
    with DermaClient("127.0.0.1:8001") as client:
        print(client.classify("lesion.jpg").differential[0])

Research use. Not a medical device.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from derma_semantics.aio import AsyncDermaClient
    from derma_semantics.client import DermaClient
    from derma_semantics.domain.conditions import Condition, RiskLevel
    from derma_semantics.domain.contract import Triage
    from derma_semantics.domain.diagnosis import Diagnosis, Finding, ServedBundle
    from derma_semantics.domain.errors import DermaError
    from derma_semantics.saliency import Explanation
    from derma_semantics.wire.connection import TLS

CONDITIONS: tuple[Condition, ...]
"""The seven conditions, in the order of the served model's ``PROBABILITIES``."""

_HOMES = {
    "AsyncDermaClient": "aio",
    "DermaClient": "client",
    "CONDITIONS": "domain.conditions",
    "Condition": "domain.conditions",
    "RiskLevel": "domain.conditions",
    "Triage": "domain.contract",
    "DermaError": "domain.errors",
    "Diagnosis": "domain.diagnosis",
    "Finding": "domain.diagnosis",
    "Explanation": "saliency",
    "ServedBundle": "domain.diagnosis",
    "TLS": "wire.connection",
}

__all__ = [
    "CONDITIONS",
    "TLS",
    "AsyncDermaClient",
    "Condition",
    "DermaClient",
    "DermaError",
    "Diagnosis",
    "Explanation",
    "Finding",
    "RiskLevel",
    "ServedBundle",
    "Triage",
]


def __getattr__(name: str) -> Any:
    """Import on first use: the server's preprocessing needs this package, but no gRPC."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

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
    from derma_semantics.client import AsyncDermaClient, DermaClient
    from derma_semantics.conditions import CONDITIONS, Condition, RiskLevel
    from derma_semantics.contract import Triage
    from derma_semantics.diagnosis import Diagnosis, Finding, ServedBundle
    from derma_semantics.errors import DermaError

_HOMES = {
    "AsyncDermaClient": "client",
    "DermaClient": "client",
    "CONDITIONS": "conditions",
    "Condition": "conditions",
    "RiskLevel": "conditions",
    "Triage": "contract",
    "DermaError": "errors",
    "Diagnosis": "diagnosis",
    "Finding": "diagnosis",
    "ServedBundle": "diagnosis",
}

__all__ = [
    "CONDITIONS",
    "AsyncDermaClient",
    "Condition",
    "DermaClient",
    "DermaError",
    "Diagnosis",
    "Finding",
    "RiskLevel",
    "ServedBundle",
    "Triage",
]


def __getattr__(name: str) -> Any:
    """Import on first use: the server's preprocessing needs this package, but no gRPC."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""A server that answers, as measurements see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from derma_bench.load.senders import Connect


@dataclass(frozen=True)
class Running:
    """A service that answers.

    Attributes:
        connect: opens a connection in the loop that uses it.
        url: of Triton's gRPC, for its statistics; empty for others.
        pid: of its first process; None where somebody else started it.
        facts: what a result says of it, such as versions.
    """

    name: str
    connect: Connect
    url: str = ""
    pid: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

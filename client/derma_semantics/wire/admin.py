"""The key of what operators do: load and unload models, read statistics, trace, log.

    ModelControl("127.0.0.1:8001", key=admin_key())

The launcher makes one at each start and leaves it in ``admin.key`` of its state folder.
"""

from __future__ import annotations

import os

from derma_semantics.domain.regular import read_regular

HEADER = "derma-admin-key"  # over HTTP
GRPC_HEADER = f"triton-grpc-protocol-{HEADER}"  # as Triton wants it


def admin_key() -> str | None:
    """DERMA_ADMIN_KEY, else what the file DERMA_ADMIN_KEY_FILE holds, else None."""
    if key := os.environ.get("DERMA_ADMIN_KEY"):
        return key
    file = os.environ.get("DERMA_ADMIN_KEY_FILE")
    try:
        return read_regular(file).decode().strip() or None if file else None
    except FileNotFoundError:  # no service has been started there
        return None

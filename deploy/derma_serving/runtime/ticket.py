"""Binds pixels to the image that they were made from, where an audit log is kept.

    ticket = issue(image, pixels)      # the step that decodes
    redeem(ticket, pixels)             # the step that answers: sha256 of the image; None: not its pixels

Whoever asks the network itself has no ticket, or one of an image that he showed: its line names that image.
Tickets are signed with a secret that the launcher makes at each start and only Triton's processes know.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derma_semantics.domain.contract import TICKET

SECRET = "DERMA_AUDIT_SECRET"  # environment variable, hexadecimal
DIGEST = 32
SIZE = 2 * DIGEST
TENSOR = {"name": TICKET, "data_type": "TYPE_UINT8", "dims": [SIZE]}


def wanted() -> bool:
    """Whether this process belongs to a service that keeps an audit log."""
    return SECRET in os.environ


def issue(image: bytes, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The ticket of one image: its digest, signed together with its pixels."""
    digest = hashlib.sha256(image).digest()
    return np.frombuffer(digest + _signature(digest, pixels), np.uint8)


def redeem(ticket: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> str | None:
    """Hex digest of the image that the pixels were made from; None where the ticket does not say so."""
    digest, signature = ticket[:DIGEST].tobytes(), ticket[DIGEST:].tobytes()
    return digest.hex() if hmac.compare_digest(signature, _signature(digest, pixels)) else None


def _signature(digest: bytes, pixels: NDArray[np.uint8]) -> bytes:
    signed: Any = hashlib.blake2b(digest, key=bytes.fromhex(os.environ[SECRET]), digest_size=DIGEST)
    signed.update(np.ascontiguousarray(pixels))
    return bytes(signed.digest())

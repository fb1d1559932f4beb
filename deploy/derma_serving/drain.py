"""Ends a Triton server without losing what it has accepted.

    drain(ModelControl("127.0.0.1:8001", key=key), until=time.monotonic() + 20)     # then SIGTERM

Told to end, Triton closes all models at once, and an ensemble's requests are lost between two of them.
Unloading the public model alone refuses new requests as UNAVAILABLE, and lets those under way go through.
"""

from __future__ import annotations

import logging
import time

from derma_semantics.domain.contract import CLASSIFIER
from derma_semantics.domain.errors import DermaError
from derma_semantics.wire.transport import ModelControl

POLL = 0.05
GONE = "UNAVAILABLE"  # the state of a model that was unloaded, once its last request is answered

logger = logging.getLogger("derma.drain")


def drain(control: ModelControl, until: float) -> bool:
    """Refuse new requests; return when none is under way, or at ``until`` (``time.monotonic``).

    Returns:
        Whether every request was answered; False too where the server does not answer itself.
    """
    began = time.monotonic()
    try:
        _within(control, until).unload(CLASSIFIER.name)
        while not _gone(_within(control, until)):
            time.sleep(POLL)
    except DermaError as exc:
        logger.warning("not all requests under way may be answered: %s", exc)
        return False
    logger.info("every request is answered, after %.1f s", time.monotonic() - began)
    return True


def _within(control: ModelControl, until: float) -> ModelControl:
    """The same, for a call that ends by ``until``; one without time left fails as too slow."""
    control.timeout = max(0.0, until - time.monotonic())
    return control


def _gone(control: ModelControl) -> bool:
    return all(row["state"] in ("", GONE) for row in control.index() if row["name"] == CLASSIFIER.name)

"""The retry policy: transient errors, with back-off.

    Retrying(**policy(10.0))(ask)

Only those that another moment, or another server, may not have: no server, a model that reloads, a full
queue. Waits grow from a tenth of a second to two seconds and are random, so that clients do not come
back all at once.
"""

from __future__ import annotations

from typing import Any

from tenacity import retry_if_exception_type, stop_before_delay, wait_random_exponential

from derma_semantics.domain.errors import ServiceUnavailable

_SHORTEST = 0.05
_LONGEST = 2.0
# An attempt needs time itself: one that wakes up too late would hide why the earlier ones failed.
_LAST = 0.1


def policy(seconds: float) -> dict[str, Any]:
    """Arguments of tenacity's ``Retrying`` and ``AsyncRetrying``; no attempt begins after ``seconds``."""
    return {
        "retry": retry_if_exception_type(ServiceUnavailable),
        "wait": wait_random_exponential(multiplier=0.2, min=_SHORTEST, max=_LONGEST),
        "stop": stop_before_delay(seconds - _LAST),
        "reraise": True,
    }

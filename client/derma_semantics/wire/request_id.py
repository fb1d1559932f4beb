"""The name of one question, by which the logs of all parts can be put together.

    request_id = new()          # "9f1c..."; sent with the question, and again where it is repeated
    check("study-7.image-3")    # a caller's own

It is written down, so it must say nothing of a patient.
"""

from __future__ import annotations

import re
import uuid

HEADER = "x-request-id"
# Nothing that could be free text or break a line of a log.
_NAME = re.compile(r"[A-Za-z0-9._@:-]{1,64}")


def new() -> str:
    """32 hexadecimal digits, drawn anew."""
    return uuid.uuid4().hex


def check(request_id: str) -> str:
    """Return it.

    Raises:
        ValueError: it is not 1 to 64 letters, digits and ``._@:-``.
    """
    if name(request_id) is None:
        raise ValueError("a request id must be 1 to 64 letters, digits or any of ._@:-")
    return request_id


def name(text: object) -> str | None:
    """A request id, or the name of a caller; None for all that may not be written down."""
    return text if isinstance(text, str) and _NAME.fullmatch(text) else None

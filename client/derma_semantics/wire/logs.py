"""Logs of every part alike: lines of text, or with ``DERMA_LOG_FORMAT=json`` a JSON object a line.

    configure("launcher")
    logging.getLogger("derma.launcher").info("ready", extra={"request_id": "9f1c..."})

A JSON line has ``time``, ``level``, ``part``, ``event`` and, where there is one, ``request_id`` and
``trace``. Callers log what happened, never what was sent: no image, name of a file or prompt.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime

VARIABLE = "DERMA_LOG_FORMAT"
FORMATS = ("text", "json")
_TEXT = "%(asctime)s %(name)s %(message)s"


def configure(part: str) -> None:
    """Send this process's log to stderr, as ``DERMA_LOG_FORMAT`` says.

    Raises:
        ValueError: it is neither ``text`` nor ``json``.
    """
    chosen = os.environ.get(VARIABLE) or "text"
    if chosen not in FORMATS:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(FORMATS)}, got {chosen!r}")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(part) if chosen == "json" else TextLines(_TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("derma", "derma_semantics", "derma_saliency"):
        logging.getLogger(name).setLevel(logging.INFO)


class TextLines(logging.Formatter):
    """The request id stands behind the message."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        request_id = getattr(record, "request_id", None)
        return f"{line}  request {request_id}" if request_id else line


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part = part

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "part": self.part,
            "event": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", None):
            line["request_id"] = request_id
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)

"""Small things that the project's commands share."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the project's commands."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 3
    INTERRUPTED = 130


def help_text(doc: str | None) -> str:
    """A module's docstring as ``--help`` text: indented blocks keep their lines."""
    return (doc or "").replace("\n\n    ", "\n\n\b\n    ")

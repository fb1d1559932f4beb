"""Small things that the project's commands share."""

from __future__ import annotations


def help_text(doc: str | None) -> str:
    """A module's docstring as ``--help`` text: indented blocks keep their lines."""
    return (doc or "").replace("\n\n    ", "\n\n\b\n    ")

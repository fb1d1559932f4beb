"""Small things that the project's commands share."""

from __future__ import annotations

import os
import unicodedata
from enum import IntEnum
from importlib.util import find_spec

import click

# Categories of Unicode that act on a terminal instead of being seen: controls, directions, separators.
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


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


def require_extra(extra: str, *modules: str) -> None:
    """Refuse a command whose packages are not installed.

    Raises:
        click.ClickException: it names the extra that brings them.
    """
    if any(find_spec(module) is None for module in modules):
        raise click.ClickException(
            f"this command needs more packages: pip install 'derma-semantics[{extra}]'"
        )


def escaped(text: str | os.PathLike[str]) -> str:
    """A text as a terminal may show it, where it may hold the name of a file.

    Controls, which could move the cursor, hide or add lines, and bytes that are no UTF-8 become escapes.
    """
    return "".join(map(_visible, os.fspath(text)))


def _visible(char: str) -> str:
    if unicodedata.category(char) not in UNSEEN:
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name, as os.fsdecode keeps it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

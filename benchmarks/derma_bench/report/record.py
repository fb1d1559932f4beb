"""One JSON file a run: what was measured, on what, by which command.

    record = make("service", figures, repeats, subject=subject, smoke=False)
    write(Path("service.json"), record); read(Path("service.json"))["figures"]

Figures are what a table shows; repeats are everything they were computed from.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from derma_bench.hardware import ROOT, git_commit, machine, versions

SCHEMA_VERSION = 1


def make(
    command: str,
    figures: Mapping[str, Any],
    repeats: Sequence[Mapping[str, Any]],
    *,
    smoke: bool,
    subject: Mapping[str, Any] | None = None,
    arguments: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A run as it is stored.

    Args:
        command: of ``derma-bench``.
        subject: which weights, precision and server were measured.
        arguments: of the command line; those of this process by default.
    """
    words = sys.argv[1:] if arguments is None else arguments
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "command_line": shlex.join(["derma-bench", *map(portable, words)]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "smoke": smoke,
        "git_commit": git_commit(),
        "hardware": machine(),
        "versions": versions(),
        "subject": dict(subject or {}),
        "figures": dict(figures),
        "repeats": [dict(repeat) for repeat in repeats],
    }


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Store a run; a crash leaves no half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}.incoming")
    incoming.write_text(json.dumps(record, indent=2) + "\n")
    incoming.replace(path)


def read(path: Path) -> dict[str, Any]:
    """A stored run.

    Raises:
        ValueError: not a run, or of another schema.
    """
    try:
        record = json.loads(path.read_text())
        version = record["schema_version"]
    except (json.JSONDecodeError, KeyError, TypeError) as exc:
        raise ValueError(f"{path} is not a run of derma-bench: {exc!r}") from exc
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path}: schema version {version}, this code reads {SCHEMA_VERSION}")
    return dict(record)


def portable(word: str) -> str:
    """An argument without this machine's folders: relative to the checkout, else the last name."""
    option, equals, value = word.rpartition("=")
    if not value.startswith("/"):
        return word
    path = Path(value)
    shown = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    return f"{option}{equals}{shown}"

"""Hold the state folder of a service: one launcher at a time.

    with claimed(Path(".run")):
        holder(Path(".run"))        # this process's id

The kernel releases the lock with its process, also after kill -9, so a stale file locks nobody out.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from derma_semantics.domain.errors import ServiceUnavailable

LOCK = "service.lock"
ATTEMPTS = 5
MOMENT = 0.05  # seconds


class StateTaken(ServiceUnavailable):
    """Another launcher holds the state folder."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the folder; the lock's file names this process.

    Raises:
        StateTaken: another process holds it.
        ServiceUnavailable: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as exc:
        raise ServiceUnavailable(f"the state folder {folder} cannot be used: {exc.strerror}") from exc
    with file:
        if not _locked(file):
            raise StateTaken(f"the service already runs (process {holder(folder)}); `derma stop` ends it")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked(file: IO[str]) -> bool:
    """Lock the file; one who only looks at it (``holder``) has it for a moment."""
    for _ in range(ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        threading.Event().wait(MOMENT)
    return False


def holder(folder: Path) -> int | None:
    """Process id of the launcher that holds the folder, if one does."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _named(folder / LOCK)
    return None


def _named(file: Path) -> int | None:
    """The process id that the lock's file holds; None in the moment before it is written."""
    text = file.read_text().strip()
    return int(text) if text.isdigit() else None

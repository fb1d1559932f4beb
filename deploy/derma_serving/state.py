"""Hold the state folder of a service: one launcher at a time.

    with claimed(Path(".run")):
        holder(Path(".run"))        # this process's id

The kernel releases the lock with its process, also after kill -9, so a stale file locks nobody out.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = held.enter_context((folder / LOCK).open("ab", buffering=0))
            if not _locked(file):
                raise StateTaken(f"the service already runs (process {holder(folder)}); `derma stop` ends it")
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        except OSError as exc:
            raise ServiceUnavailable(f"the state folder {folder} cannot be used: {exc.strerror}") from exc
        yield


def copied(source: Path, folder: Path) -> None:
    """Copy a folder's files to a new one in the state folder.

    Raises:
        ServiceUnavailable: one cannot be copied, as on a full disk.
    """
    try:
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    except shutil.Error as exc:
        *_, reason = exc.args[0][0]
        raise ServiceUnavailable(f"{folder} cannot be written: {reason}") from exc


def _locked(file: IO[bytes]) -> bool:
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

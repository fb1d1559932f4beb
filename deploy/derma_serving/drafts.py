"""Write files so that a kill or a full disk leaves what was there.

    with writing(folder):
        put([draft(path, content) for path, content in files.items()])

Everything is written and flushed under other names first and then renamed. What a killed process left
under such a name, the next ``writing`` removes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from derma_serving.runtime.lock import locked

SUFFIX = ".incoming"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; remove drafts of a process that was killed, and of this one if it fails."""
    with locked(folder), naming(folder):
        _sweep(folder)
        try:
            yield
        finally:
            _sweep(folder)


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Name the folder in errors: a write to a full disk names no file by itself."""
    try:
        yield
    except OSError as exc:
        exc.filename = exc.filename or str(folder)
        raise


def hidden(path: Path) -> Path:
    """The name that a file or folder is written under."""
    return path.with_name(f".{path.name}{SUFFIX}")


def draft(path: Path, content: bytes) -> Path:
    """Write a file under its hidden name; returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden(path).write_bytes(content)
    flush(hidden(path))
    return path


def put(paths: Iterable[Path]) -> None:
    """Rename drafts to the names they are meant for, in this order."""
    paths = list(paths)
    for path in paths:
        hidden(path).replace(path)
    flush(*{path.parent for path in paths})


def flush(*paths: Path) -> None:
    """Have the disk hold files and folders as they are now."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(folder: Path) -> None:
    for path in folder.rglob(f".*{SUFFIX}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

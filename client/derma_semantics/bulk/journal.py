"""Answers on disk, one JSON object a line, so that interrupted work goes on.

    with Journal(Path("answers.jsonl"), digest) as journal:
        journal.append("ISIC_0024306", diagnosis)
    "ISIC_0024306" in journal.names

All answers of a journal come from the same weights, and one process at a time writes to it. The
operating system has an answer when ``append`` returns, so a kill loses none; a power cut loses
at most the last ``SYNC_ANSWERS`` or those of the last ``SYNC_SECONDS``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from derma_semantics.domain.diagnosis import Diagnosis

if sys.platform != "win32":
    import fcntl

SYNC_ANSWERS = 64
SYNC_SECONDS = 1.0
# Key of what tells a file from a later one of the same name; see ``stamp``.
STAMP = "file"
# Key of why an answered image has no report.
REPORT = "report"

Record = dict[str, Any]


class Journal:
    """The answers so far; ``names`` are the images that have one, each with the stamp of its file.

    Args:
        path: the file; it need not exist.
        digest: the bundle's, whose answers belong here.

    Raises:
        ValueError: the file holds answers of another bundle, is damaged, or another process
            writes to it.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self.digest = digest
        self.names: dict[str, str | None] = {}
        self._unsynced = 0
        self._synced = time.monotonic()
        self._file = _locked(path)
        try:
            self._drop_cut_line()
            for record in self.records():
                self._same(began=record["bundle_digest"], now=digest)
                self.names[record["image"]] = record.get(STAMP)
        except BaseException:
            self._file.close()
            raise

    def append(self, name: str, answer: Diagnosis, **more: Any) -> None:
        """Keep one answer; ``more`` are further JSON values of its record, ``file`` among them its stamp.

        Raises:
            ValueError: it comes from another bundle, as in a roll-out.
            OSError: it cannot be written, e.g. for want of space.
        """
        self._same(began=self.digest, now=answer.bundle.digest)
        line = json.dumps({"image": name, **answer.to_dict(), **more})
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        self.names[name] = more.get(STAMP)
        self._unsynced += 1
        if self._unsynced >= SYNC_ANSWERS or time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Return when the disk has every answer."""
        os.fsync(self._file.fileno())
        self._unsynced, self._synced = 0, time.monotonic()

    def records(self) -> Iterator[Record]:
        """Every answer as it was appended, in order, one at a time."""
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield json.loads(line)
                except ValueError as exc:
                    raise ValueError(
                        f"{self.path} is damaged in line {number} ({exc}): remove that line, whose "
                        "image is then asked again, or give another --out"
                    ) from exc

    def count(self) -> int:
        """How many answers the file holds, also after an ``append`` that was interrupted."""
        with suppress(OSError):  # what cannot be written is not there
            self._file.flush()
        with self.path.open("rb") as lines:
            return sum(line.endswith(b"\n") for line in lines)

    def remove(self) -> None:
        """Delete the file, while no other process can take it for its own."""
        self.path.unlink()

    def close(self) -> None:
        if not self._file.closed:
            self.sync()
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _same(self, *, began: str, now: str) -> None:
        if began != now:
            raise ValueError(
                f"{self.path} holds answers of bundle {began[:12]}, but the service now answers with "
                f"{now[:12]}: one run holds answers of one bundle, so serve {began[:12]} again to go on, "
                "remove the file to begin anew, or give another --out"
            )

    def _drop_cut_line(self) -> None:
        """Cut off a last line that a kill or a full disk left unfinished."""
        whole = 0
        with self.path.open("rb") as lines:
            for line in lines:
                whole += len(line) if line.endswith(b"\n") else 0
        self._file.truncate(whole)


def stamp(name: str) -> str | None:
    """Size and time of change of a file, None where there is none."""
    try:
        found = os.stat(name)  # noqa: PTH116 - names are strings, for speed
    except OSError:
        return None
    return f"{found.st_size} {found.st_mtime_ns}"


def _locked(path: Path) -> IO[bytes]:
    """The file, open for appending, and locked until it is closed."""
    if sys.platform == "win32":
        return path.open("ab")
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ValueError(f"{path} is in use: another process writes to the same --out") from None
        if _names(path, file):
            return file
        file.close()  # the other process removed it meanwhile: it has just finished


def _names(path: Path, file: IO[bytes]) -> bool:
    """Whether ``path`` still is this file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False

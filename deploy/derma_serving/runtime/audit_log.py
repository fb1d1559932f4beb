"""The audit log: a JSON line for each classification, with nothing of the photograph but its sha256.

    log = AuditLog(Path(".run/audit.jsonl"))
    log.append([entry("4bf9...", image_sha256, bundle, probabilities, 2, "alice")])

Lines are only ever appended. A file that would exceed ``max_bytes`` is renamed by the time of that, to
``audit.jsonl.20261125T152506.123456Z``; none is deleted. It may also be renamed by others, such as logrotate:
the next line goes into a new one. Several processes may write one log.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from derma_semantics.domain.conditions import CODES
from derma_semantics.domain.contract import Triage
from derma_semantics.wire.request_id import name

MAX_BYTES = 64 * 2**20
STAMP = "%Y%m%dT%H%M%S.%fZ"


def entry(
    request_id: str,
    image_sha256: str,
    bundle: bytes,
    probabilities: Sequence[float],
    triage: int,
    caller: str | None,
) -> dict[str, Any]:
    """The line of one image. Names too long, or with other characters, become null."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": name(request_id),
        "image_sha256": image_sha256,
        "bundle_digest": bytes(bundle).hex(),
        "probabilities": {code: float(value) for code, value in zip(CODES, probabilities, strict=True)},
        "triage": Triage(triage).name.lower(),
        "caller": name(caller),
    }


class AuditLog:
    """A file that lines are appended to.

    Args:
        path: made, readable by its owner alone, where it does not exist.
        max_bytes: of one file.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._file = self._open()

    def append(self, entries: Iterable[dict[str, Any]]) -> None:
        """Write a line for each; returns once the kernel has them.

        Raises:
            OSError: not all of it could be written, as on a full disk.
        """
        lines = "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in entries).encode()
        with self._lock:
            while not self._appended(lines):
                renamed, self._file = self._file, self._open()
                os.close(renamed)

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _appended(self, lines: bytes) -> bool:
        """Write them, unless the file has been renamed: by somebody else, or just now for want of room."""
        with _locked(self._file):
            if not self._is_current():
                return False
            size = os.fstat(self._file).st_size
            if size and size + len(lines) > self.max_bytes:
                self._rotate()
                return False
            # What a killed process or a full disk cut short stays on a line of its own.
            torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
            _write(self._file, b"\n" + lines if torn else lines)
            return True

    def _is_current(self) -> bool:
        try:
            found = os.stat(self.path)  # noqa: PTH116
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._file))

    def _rotate(self) -> None:
        """No two names are alike, though older files are moved away: one process at a time rotates."""
        when = datetime.now(UTC)
        while (older := Path(f"{self.path}.{when:{STAMP}}")).exists():
            when += timedelta(microseconds=1)
        self.path.rename(older)


@contextmanager
def _locked(file: int) -> Iterator[None]:
    """Against other processes; whatever fails meanwhile, they do not wait for ever."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]

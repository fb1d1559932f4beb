"""Shared memory that a killed model process leaves behind while requests are under way.

    before = unused("derma_8001_", stubs)       # then reload the model
    remove(before & unused("derma_8001_", stubs))

Triton keeps one segment for each model process, and forgets to remove that of a process which died with
requests in its hands.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

FOLDER = Path("/dev/shm")


def unused(prefix: str, processes: Iterable[int]) -> set[Path]:
    """Segments whose name begins so, and that none of these processes has in its memory."""
    maps = "".join(_maps(pid) for pid in processes)
    return {segment for segment in FOLDER.glob(f"{prefix}*") if f"{segment}\n" not in maps}


def remove(segments: Iterable[Path]) -> None:
    for segment in segments:
        segment.unlink(missing_ok=True)


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""

"""Open regular files and nothing else.

    data = read_regular("lesion.jpg")
    with open_regular("lesion.jpg") as file:
        head = file.read(132)

Whoever opens a named pipe waits for its writer, and a device need not end: a folder that others
write to could stop whatever reads it.
"""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from typing import TypeAlias

PathLike: TypeAlias = str | os.PathLike[str]

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Opening a pipe does not wait for its writer, should one take the place of the file just looked at.
NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def open_regular(path: PathLike) -> BufferedReader:
    """The file, open for reading bytes; links are followed.

    Raises:
        OSError: it cannot be read, or is no regular file; names the path.
    """
    _check(os.stat(path).st_mode, path)  # noqa: PTH116  # a device may act when it is opened
    file = open(path, "rb", opener=_opener)  # noqa: SIM115
    try:
        _check(os.fstat(file.fileno()).st_mode, path)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: PathLike, most: int = -1) -> bytes:
    """The bytes of a file, or the first ``most`` of them.

    Raises:
        OSError: as ``open_regular``.
    """
    with open_regular(path) as file:
        return file.read(most)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | NO_WAIT)


def _check(mode: int, path: PathLike) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(f"{os.fspath(path)} is {kind}; only regular files are read")

"""Which images a bulk run is about: files, folders, globs, and a list.

    for name in images(["photos/", "more/*.png", "one.jpg"]): ...
    for name in images(["-"], listed=sys.stdin.buffer): ...      # a name a line

Names are strings: for 100,000 of them, paths would take seconds and many times the memory.
"""

# ruff: noqa: PTH100, PTH112, PTH207

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from glob import has_magic, iglob

from derma_semantics.domain.formats import CLIENT_SUFFIXES
from derma_semantics.imaging.folders import too_few, walk

LIST = "-"


def images(sources: Iterable[str], *, recursive: bool = True, listed: Iterable[bytes] = ()) -> Iterator[str]:
    """The names of all images, each once, as they are found; folders and globs in sorted order.

    Args:
        sources: files, whatever their suffix; folders, for the images in them; globs; ``-`` for
            ``listed``.
        recursive: whether folders stand for the images in their subfolders too.
        listed: lines, each the name of a file or folder.

    Raises:
        ValueError: a source does not exist, holds no image, or matches nothing.
        OSError: a folder cannot be read.
    """
    seen: set[str] = set()
    for source in sources:
        found = _listed(listed, recursive) if source == LIST else _named(source, recursive)
        empty = True
        for name in found:
            empty = False
            if (place := os.path.abspath(name)) not in seen:
                seen.add(place)
                yield name
        if empty:
            raise ValueError(_nothing(source))


def printable(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _named(source: str, recursive: bool) -> Iterator[str]:
    names = [source] if os.path.lexists(source) else sorted(iglob(source, recursive=True))
    for name in names:
        yield from _expanded(name, recursive)


def _listed(lines: Iterable[bytes], recursive: bool) -> Iterator[str]:
    """A listed file that is missing is a failed image, not an end of the run."""
    for line in lines:
        if name := os.fsdecode(line.rstrip(b"\r\n")):
            yield from _expanded(name, recursive)


def _expanded(name: str, recursive: bool) -> Iterator[str]:
    if not os.path.isdir(name):
        yield os.path.normpath(name)
        return
    yield from map(os.path.normpath, walk(name, CLIENT_SUFFIXES, recursive=recursive))


def _nothing(source: str) -> str:
    if source == LIST:
        return "the list on stdin names no image"
    if os.path.isdir(source):
        return too_few(source, CLIENT_SUFFIXES)
    return f"{source} {'matches nothing' if has_magic(source) else 'does not exist'}"

"""Which images a bulk run is about: files, folders, globs, and a list.

    for name in images(["photos/", "more/*.png", "one.jpg"]): ...
    for name in images(["-"], listed=sys.stdin.buffer): ...      # see ``lists``

Names are strings: for 100,000 of them, paths would take seconds and many times the memory.
"""

# ruff: noqa: PTH100, PTH112, PTH119, PTH207

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from glob import has_magic, iglob

from derma_semantics.bulk.lists import Readable, names_in
from derma_semantics.domain.formats import CLIENT_SUFFIXES
from derma_semantics.imaging.folders import NO_IMAGE, too_few, walk

LIST = "-"

Skip = Callable[[str], object]


def images(
    sources: Iterable[str],
    *,
    recursive: bool = True,
    listed: Readable | None = None,
    skipped: Skip = lambda _: None,
) -> Iterator[str]:
    """The names of all images, each once, as they are found; folders and globs in sorted order.

    Args:
        sources: files, whatever their suffix; folders, for the images in them; globs; ``-`` for
            ``listed``.
        recursive: whether folders stand for the images in their subfolders too.
        listed: the names of files and folders.
        skipped: told the name of each file of a folder that is no image, once.

    Raises:
        ValueError: a source does not exist, holds no image, or matches nothing.
        OSError: a folder cannot be read.
    """
    seen: set[str] = set()

    def skip(name: str) -> None:
        if (place := os.path.abspath(name)) not in seen:
            seen.add(place)
            skipped(os.path.normpath(name))

    for source in sources:
        if source == LIST:
            found = _listed(listed or io.BytesIO(), recursive, skip)
        else:
            found = _named(source, recursive, skip)
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


def _named(source: str, recursive: bool, skip: Skip) -> Iterator[str]:
    names = [source] if os.path.lexists(source) else sorted(iglob(source, recursive=True))
    for name in names:
        yield from _expanded(name, recursive, skip)


def _listed(file: Readable, recursive: bool, skip: Skip) -> Iterator[str]:
    """A listed file that is missing is a failed image, not an end of the run."""
    for name in names_in(file):
        if not os.path.basename(name).startswith(NO_IMAGE):
            yield from _expanded(name, recursive, skip)


def _expanded(name: str, recursive: bool, skip: Skip) -> Iterator[str]:
    if not os.path.isdir(name):
        yield os.path.normpath(name)
        return
    yield from map(os.path.normpath, walk(name, CLIENT_SUFFIXES, recursive=recursive, skipped=skip))


def _nothing(source: str) -> str:
    if source == LIST:
        return "the list on stdin names no image"
    if os.path.isdir(source):
        return too_few(source, CLIENT_SUFFIXES)
    return f"{source} {'matches nothing' if has_magic(source) else 'does not exist'}"

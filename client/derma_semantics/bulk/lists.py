"""Lists of file names on standard input.

    for name in names_in(sys.stdin.buffer): ...

A name a line, or names that end in NUL (``find -print0``), in the file system's encoding; or in
UTF-16, where a byte order mark says so. The first bytes decide; names come as soon as they are whole.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from typing import Protocol

PIECE = 2**16
# By their byte order mark.
ENCODINGS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


class Readable(Protocol):
    """A binary stream that returns what there is, as ``sys.stdin.buffer`` does."""

    def read1(self, size: int, /) -> bytes: ...


def names_in(file: Readable) -> Iterator[str]:
    """Every name, in order; empty ones are left out."""
    first = _begin(file)
    if encoding := ENCODINGS.get(first[:2]):
        yield from _names(_decoded(file, first[2:], encoding), re.compile("[\n\0]"))
        return
    first = first.removeprefix(codecs.BOM_UTF8)
    ends = re.compile("\0" if b"\0" in first else "[\n\0]")  # no name holds NUL
    for name in _names(_bytes(file, first), ends):
        yield os.fsdecode(name.encode("latin-1"))


def _begin(file: Readable) -> bytes:
    """The first bytes, enough to tell a byte order mark."""
    data = b""
    while len(data) < len(codecs.BOM_UTF8) and (more := file.read1(PIECE)):
        data += more
    return data


def _pieces(file: Readable, first: bytes) -> Iterator[bytes]:
    piece = first
    while piece:
        yield piece
        piece = file.read1(PIECE)


def _bytes(file: Readable, first: bytes) -> Iterator[str]:
    """One character a byte."""
    return (piece.decode("latin-1") for piece in _pieces(file, first))


def _decoded(file: Readable, first: bytes, encoding: str) -> Iterator[str]:
    """What is no UTF-16 becomes a name that no file has, and is reported as such."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    yield from (decoder.decode(piece) for piece in _pieces(file, first))
    yield decoder.decode(b"", final=True)


def _names(texts: Iterator[str], ends: re.Pattern[str]) -> Iterator[str]:
    rest = ""
    for text in texts:
        *whole, rest = ends.split(rest + text)
        yield from filter(None, (_line(name, ends) for name in whole))
    yield from filter(None, (_line(rest, ends),))


def _line(name: str, ends: re.Pattern[str]) -> str:
    """Without the carriage return of a line that Windows wrote."""
    return name if ends.pattern == "\0" else name.rstrip("\r")

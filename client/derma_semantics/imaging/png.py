"""Read a PNG without the chunks that its pixels do not need.

    data = without_ancillary_chunks(data)

A text or colour profile that is damaged, or grows large when it is decompressed, is no reason to
refuse a photograph. Chunks: https://www.w3.org/TR/png-3/, section 11.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
# What decides the pixels, and which way is up.
KEPT = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"}
_FRAME = 12  # length, type and checksum of a chunk


def without_ancillary_chunks(data: bytes) -> bytes:
    """The same PNG with only the chunks in ``KEPT``.

    One that is cut off stays, for the decoder to name.
    """
    return PNG + b"".join(chunk for kind, chunk in _chunks(data) if kind in KEPT)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(PNG)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + _FRAME + length
        yield kind, data[position:end]
        position = end

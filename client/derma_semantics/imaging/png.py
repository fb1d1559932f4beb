"""Read a PNG without the chunks that its pixels do not need.

    data = without_ancillary_chunks(data)

A text or colour profile that is damaged, or grows large when it is decompressed, is no reason to
refuse a photograph. Chunks: https://www.w3.org/TR/png-3/, section 11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

from derma_semantics.domain.formats import PNG

(SIGNATURE,) = PNG.signatures
# What decides the pixels, and which way is up.
KEPT = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"}
MAX_PROFILE_BYTES = 2**20 - 1
_FRAME = 12  # length, type and checksum of a chunk


def without_ancillary_chunks(data: bytes) -> bytes:
    """The same PNG with only the chunks in ``KEPT``.

    One that is cut off stays, for the decoder to name.
    """
    return SIGNATURE + b"".join(
        chunk for kind, chunk in _chunks(data) if kind in KEPT or _is_profile(kind, chunk)
    )


def _is_profile(kind: bytes, chunk: bytes) -> bool:
    """A colour profile of a size that Pillow reads: name, zero, method, compressed profile."""
    body, checksum = chunk[8:-4], chunk[-4:]
    if kind != b"iCCP" or zlib.crc32(kind + body) != int.from_bytes(checksum, "big"):
        return False
    unpacker = zlib.decompressobj()
    with suppress(zlib.error):
        unpacker.decompress(body.partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
        return unpacker.eof
    return False


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + _FRAME + length
        yield kind, data[position:end]
        position = end

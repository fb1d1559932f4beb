"""Damaged images, the same for the same number: mutations that know how each format is built.

    mutated(7)      # bytes

A file is taken apart at its own seams (PNG chunks, JPEG segments, RIFF chunks, TIFF directory entries), parts
are dropped, doubled, swapped, spliced from another file or damaged inside, and it is put together again with
right checksums and lengths, so that damage reaches the decoders and not only the checks before them.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

from PIL import Image

from tests.faults.originals import originals

PNG = b"\x89PNG\r\n\x1a\n"
# At the edges of the types that headers are made of.
NUMBERS = (
    0,
    1,
    2,
    7,
    31,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
SIZES = (0, 1, 31, 32, 3200, 7071, 30_000, 65_535, 2**31 - 1)


def mutated(number: int) -> bytes:
    """One damaged image; a few are damaged so little that they stay valid."""
    rng = random.Random(number)
    if rng.random() < 0.04:
        return rng.choice(bombs())
    data = rng.choice(list(originals().values()))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice((_anywhere, _anywhere, _parts, _parts, _header))(rng, data)
    return data


@cache
def bombs() -> tuple[bytes, ...]:
    """Small files that would become large, and files that are hardly there."""
    wide, tall = _png_of(30_000, 30_000), _png_of(40, 2_000_000)
    grey = io.BytesIO()
    Image.new("1", (7000, 7000)).save(grey, "PNG", compress_level=1)  # 49 megapixels: valid
    text = _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 9))
    bomb = originals()["png RGB"]
    profile = _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000), 9))
    files = [wide, tall, grey.getvalue(), bomb[:33] + text + bomb[33:], bomb[:33] + profile + bomb[33:]]
    magics = (b"", b"\xff", b"\xff\xd8\xff", PNG, b"RIFF\0\0\0\0WEBP", b"II*\0", b"MM\0*\0\0\0\x08", b"BM")
    noise = random.Random(0).randbytes(3000)
    return (*files, *magics, *(magic + noise for magic in magics), bytes(132) + b"DICM", bytes(21 * 2**20))


def _png_of(width: int, height: int) -> bytes:
    """A header that promises many pixels, and a few of them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(100_000))) + _chunk(b"IEND", b"")
    )


def _anywhere(rng: random.Random, data: bytes) -> bytes:
    """Damage that knows nothing of formats."""
    if not data:
        return rng.randbytes(rng.randrange(64))
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 2, 4, 16, 256, 4096)))
    other = rng.choice(list(originals().values()))
    at = rng.randrange(len(other))
    return rng.choice(
        (
            lambda: data[:start],
            lambda: _flipped(rng, data, rng.choice((1, 4, 64))),
            lambda: data[:start] + data[end:],
            lambda: data[:end] + data[start:],
            lambda: data[:start] + bytes(end - start) + data[end:],
            lambda: data[:start] + rng.randbytes(end - start) + data[end:],
            lambda: data[:start] + other[at:],
            lambda: data[:start] + other[at : at + end - start] + data[end:],
            lambda: _overwritten(rng, data, start),
            lambda: data + rng.randbytes(rng.choice((1, 100, 10_000))),
        )
    )()


def _flipped(rng: random.Random, data: bytes, count: int) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwritten(rng: random.Random, data: bytes, at: int) -> bytes:
    """A number at the edge of its type, of some width and byte order."""
    width, order = rng.choice((1, 2, 4)), rng.choice(("big", "little"))
    number = (rng.choice(NUMBERS) & ((1 << 8 * width) - 1)).to_bytes(width, order)
    return data[:at] + number + data[at + width :]


def _parts(rng: random.Random, data: bytes) -> bytes:
    """Damage at the seams: parts dropped, doubled, swapped, emptied, damaged inside."""
    take_apart, put_together = _format(data)
    parts = take_apart(data)
    if len(parts) < 2:
        return _anywhere(rng, data)
    one, two = rng.randrange(len(parts)), rng.randrange(len(parts))
    action = rng.randrange(6)
    if action == 0:
        del parts[one]
    elif action == 1:
        parts[two:two] = [parts[one]] * rng.choice((1, 2, 50))
    elif action == 2:
        parts[one], parts[two] = parts[two], parts[one]
    elif action == 3:
        parts[one] = (parts[one][0], b"")
    elif action == 4:
        rng.shuffle(parts)
    else:
        name, body = parts[one]
        parts[one] = (name, _anywhere(rng, body))
    return put_together(parts)


def _header(rng: random.Random, data: bytes) -> bytes:
    """A header that lies about size, depth or kind, with right checksums."""
    if data.startswith(PNG):
        return _png_header(rng, data)
    if data[:2] == b"\xff\xd8":
        return _patched(rng, data, [at + 5 for at in _frames(data)], ">H", 2)
    if data[:2] == b"BM":
        return _patched(rng, data, [18, 22, 28, 30, 46], "<I", 1)
    if data[8:12] == b"WEBP":
        return _patched(rng, data, [20, 24, 26, 28], "<H", 2)
    if data[128:132] == b"DICM":
        return _dicom_header(rng, data)
    return _tiff_entry(rng, data)


def _png_header(rng: random.Random, data: bytes) -> bytes:
    width, height, *rest = struct.unpack(">IIBBBBB", data[16:29].ljust(13, b"\0"))
    fields = [width, height, *rest]
    which = rng.randrange(7)
    fields[which] = rng.choice(SIZES) if which < 2 else rng.choice((0, 1, 2, 3, 4, 5, 6, 8, 16, 255))
    return PNG + _chunk(b"IHDR", struct.pack(">IIBBBBB", *fields)) + data[33:]


def _patched(rng: random.Random, data: bytes, places: list[int], kind: str, count: int) -> bytes:
    if not places:
        return _anywhere(rng, data)
    at, size = rng.choice(places), struct.calcsize(kind)
    values = [rng.choice(SIZES) & ((1 << 8 * size) - 1) for _ in range(count)]
    return data[:at] + b"".join(struct.pack(kind, value) for value in values) + data[at + size * count :]


def _frames(data: bytes) -> list[int]:
    return [at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := data.find(marker)) >= 0]


def _dicom_header(rng: random.Random, data: bytes) -> bytes:
    """Rows, Columns, SamplesPerPixel, BitsAllocated, BitsStored of an explicit or implicit data set."""
    element = rng.choice((0x0010, 0x0011, 0x0002, 0x0100, 0x0101))
    at = data.find(struct.pack("<HH", 0x0028, element))
    return _anywhere(rng, data) if at < 0 else _patched(rng, data, [at + 8], "<H", 1)


def _tiff_entry(rng: random.Random, data: bytes) -> bytes:
    """One directory entry: its tag, type, count or value; or where the next directory is."""
    if len(data) < 16 or data[:2] not in (b"II", b"MM"):
        return _anywhere(rng, data)
    order = "<" if data[:2] == b"II" else ">"
    first = struct.unpack(order + "I", data[4:8])[0]
    if first + 2 > len(data):
        return _anywhere(rng, data)
    entries = min(struct.unpack(order + "H", data[first : first + 2])[0], 40)
    entry = first + 2 + 12 * rng.randrange(entries + 1)
    if rng.random() < 0.1:
        return data[:entry] + struct.pack(order + "I", first) + data[entry + 4 :]  # a loop
    at, kind = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")))
    return _patched(rng, data, [entry + at], order + kind, 1)


Parts = list[tuple[bytes, bytes]]


def _format(data: bytes) -> tuple[Callable[[bytes], Parts], Callable[[Parts], bytes]]:
    if data.startswith(PNG):
        return _png_parts, lambda parts: PNG + b"".join(_chunk(*part) for part in parts)
    if data[:2] == b"\xff\xd8":
        return _jpeg_parts, lambda parts: b"\xff\xd8" + b"".join(_segment(*part) for part in parts)
    if data[8:12] == b"WEBP":
        return _riff_parts, _riff
    return _thirds, lambda parts: b"".join(body for _, body in parts)


def _png_parts(data: bytes) -> Parts:
    parts, at = [], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        parts.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _jpeg_parts(data: bytes) -> Parts:
    """Segments; what follows the first start of scan stays with it."""
    parts, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = len(data) if data[at + 1] == 0xDA else at + 2 + length
        parts.append((data[at : at + 2], data[at + 4 : end]))
        at = end
    return parts


def _segment(name: bytes, body: bytes) -> bytes:
    length = 12 if name == b"\xff\xda" else len(body) + 2
    return name + struct.pack(">H", length & 0xFFFF) + body


def _riff_parts(data: bytes) -> Parts:
    parts, at = [], 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        parts.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return parts


def _riff(parts: Parts) -> bytes:
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        for name, content in parts
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _thirds(data: bytes) -> Parts:
    """Formats whose parts point at one another: pieces of a sixteenth."""
    size = max(1, len(data) // 16)
    return [(b"", data[at : at + size]) for at in range(0, len(data), size)]

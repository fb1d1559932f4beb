"""Damaged images, the same for the same number: mutations that know how each format is built.

    mutated(7)      # bytes

A file is taken apart at its own seams (PNG chunks, JPEG segments and scans, RIFF chunks, TIFF directory
entries, DICOM attributes), parts are dropped, doubled, swapped, spliced from another file or damaged inside,
and it is put together again with right checksums and lengths, so that damage reaches the decoders and not
only the checks before them. Scans are repeated, and chunks, EXIF tags and attributes added that no camera
writes.
"""

from __future__ import annotations

import io
import random
import re
import struct
import zlib
from collections.abc import Callable
from functools import cache

from PIL import Image

from tests.faults.originals import originals

PNG = b"\x89PNG\r\n\x1a\n"
START_OF_SCAN = b"\xff\xda"
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither stuffing nor a restart
LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT")  # representations whose length has four bytes
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
        data = rng.choice((_anywhere, _anywhere, _parts, _parts, _header, _added))(rng, data)
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


def _added(rng: random.Random, data: bytes) -> bytes:
    """Something sound in form that no camera writes."""
    if data.startswith(PNG):
        return _added_chunk(rng, data)
    if data[:2] == b"\xff\xd8":
        return rng.choice((_repeated_scans, _added_tags))(rng, data)
    if data[8:12] == b"WEBP":
        parts = _riff_parts(data)
        parts.insert(rng.randrange(len(parts) + 1), (b"EXIF", _exif(rng)))
        return _riff(parts)
    if data[128:132] == b"DICM":
        return _added_attribute(rng, data)
    return _tiff_entry(rng, data)


def _repeated_scans(rng: random.Random, data: bytes) -> bytes:
    parts = _jpeg_parts(data)
    scans = [at for at, (name, _) in enumerate(parts) if name == START_OF_SCAN]
    if not scans:
        return _anywhere(rng, data)
    at = rng.choice(scans)
    parts[at:at] = [parts[at]] * rng.choice((1, 10, 90, 110, 1500))
    return _jpeg(parts)


def _added_tags(rng: random.Random, data: bytes) -> bytes:
    parts = _jpeg_parts(data)
    parts.insert(rng.randrange(min(3, len(parts) + 1)), (b"\xff\xe1", b"Exif\0\0" + _exif(rng)))
    return _jpeg(parts)


def _exif(rng: random.Random) -> bytes:
    """An orientation and up to five tags of any number, type, count and value."""
    order = rng.choice("<>")
    tags = [(0x0112, 3, 1, struct.pack(order + "HH", rng.randrange(10), 0))]
    for _ in range(rng.randrange(6)):
        tag = rng.choice((rng.randrange(2**16), 0x8769, 0x8825, 0xA005, 0x014A))
        tags.append((tag, rng.randrange(20), rng.choice((*NUMBERS, rng.randrange(2**32))), rng.randbytes(4)))
    table = b"".join(struct.pack(order + "HHI", *tag[:3]) + tag[3] for tag in sorted(tags))
    begin = b"II*\0" if order == "<" else b"MM\0*"
    return begin + struct.pack(order + "IH", 8, len(tags)) + table + rng.randbytes(rng.choice((0, 4, 40)))


CHUNKS = (
    *(
        b"PLTE",
        b"tRNS",
        b"gAMA",
        b"cHRM",
        b"sRGB",
        b"iCCP",
        b"cICP",
        b"tEXt",
        b"zTXt",
        b"iTXt",
        b"bKGD",
        b"hIST",
    ),
    *(
        b"pHYs",
        b"sBIT",
        b"sPLT",
        b"tIME",
        b"eXIf",
        b"acTL",
        b"fcTL",
        b"fdAT",
        b"IDAT",
        b"IEND",
        b"prVt",
        b"CriT",
    ),
)


def _added_chunk(rng: random.Random, data: bytes) -> bytes:
    """Of any kind and content, wherever; a few with a wrong checksum."""
    body = rng.choice(
        (
            b"",
            rng.randbytes(rng.choice((1, 4, 9, 13, 32, 256, 768))),
            b"Comment\0\0" + zlib.compress(bytes(rng.choice((10, 2**21)))),
            _exif(rng),
        )
    )
    chunk = _chunk(rng.choice(CHUNKS), body)
    if rng.random() < 0.2:
        chunk = chunk[:-1] + bytes([chunk[-1] ^ 1])
    seams = [8]
    for _, content in _png_parts(data):
        seams.append(seams[-1] + 12 + len(content))
    at = rng.choice(seams)
    return data[:at] + chunk + data[at:]


ATTRIBUTES = (
    *(
        (0x0028, element)
        for element in (*range(2, 7), 8, 0x10, 0x11, 0x34, *range(0x100, 0x108), 0x301, 0x1052)
    ),
    *((0x0028, element) for element in (0x1101, 0x1201, 0x1221, 0x2110, 0x0A02, 0x3010)),
    *((0x0008, element) for element in (0x0005, 0x0008, 0x0016, 0x0018, 0x1140, 0x2218)),
    *((0x0010, element) for element in (0x0010, 0x0020, 0x0030, 0x0040, 0x1010)),
    *((0x0002, 0x0010), (0x7FE0, 0x0001), (0x7FE0, 0x0010), (0x5200, 0x9229), (0x0009, 0x0010)),
)
VRS = (
    b"US",
    b"SS",
    b"IS",
    b"CS",
    b"UI",
    b"PN",
    b"DA",
    b"LO",
    b"DS",
    b"FD",
    b"AT",
    b"OB",
    b"OW",
    b"SQ",
    b"UN",
    b"ZZ",
)


def _added_attribute(rng: random.Random, data: bytes) -> bytes:
    """Of any representation and value, before the pixels or instead of one that was there."""
    parts = _dicom_parts(data)
    at = rng.randrange(1, len(parts)) if len(parts) > 1 else 0
    value = rng.choice(
        (
            b"",
            struct.pack("<H", rng.choice(NUMBERS) & 0xFFFF),
            rng.choice(
                (b"MONOCHROME2 ", b"PALETTE COLOR ", b"YBR_FULL", b"RGB ", b"-1", b"2\\3 ", b"1e400 ")
            ),
            rng.randbytes(rng.choice((1, 2, 8, 100, 1536))),
        )
    )
    vr = rng.choice(VRS)
    name = struct.pack("<HH", *rng.choice(ATTRIBUTES)) + vr + (b"\0\0" if vr in LONG else b"")
    parts[at : at + rng.randrange(2)] = [(name, value)]
    return _dicom(parts)


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
        return _jpeg_parts, _jpeg
    if data[8:12] == b"WEBP":
        return _riff_parts, _riff
    if data[128:132] == b"DICM":
        return _dicom_parts, _dicom
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
    """Segments; the coded data of a scan stays with its header."""
    parts, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at : at + 2] == START_OF_SCAN:
            marker = MARKER.search(data, end)
            end = marker.start() if marker else len(data)
        parts.append((data[at : at + 2], data[at + 4 : end]))
        at = end
    return parts


def _jpeg(parts: Parts) -> bytes:
    return b"\xff\xd8" + b"".join(_segment(*part) for part in parts) + b"\xff\xd9"


def _segment(name: bytes, body: bytes) -> bytes:
    # A scan's length is that of its header: the number of components, two bytes each, and three more.
    length = 6 + 2 * body[0] if name == START_OF_SCAN and body else len(body) + 2
    return name + struct.pack(">H", length & 0xFFFF) + body


def _dicom_parts(data: bytes) -> Parts:
    """The preamble, then attributes: tag and representation, value. What has no length stays whole."""
    parts, at = [(b"", data[:132])], 132
    while at + 8 <= len(data):
        vr = data[at + 4 : at + 6]
        explicit = vr.isalpha() and vr.isupper()
        head = 4 if not explicit else 8 if vr in LONG else 6
        size = 2 if head == 6 else 4
        length = int.from_bytes(data[at + head : at + head + size], "little")
        if length == 0xFFFFFFFF:
            break
        start = at + head + size
        parts.append((data[at : at + head], data[start : start + length]))
        at = start + length
    return [*parts, (b"", data[at:])]


def _dicom(parts: Parts) -> bytes:
    return b"".join(_attribute(*part) for part in parts)


def _attribute(name: bytes, value: bytes) -> bytes:
    if not name:
        return value
    size = 2 if len(name) == 6 else 4
    return name + (len(value) & ((1 << 8 * size) - 1)).to_bytes(size, "little") + value


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

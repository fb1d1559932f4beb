"""Images that cost a decoder far more than their sender, or hold odd tags."""

import io
import struct

from PIL import Image

SHORT = 3  # a TIFF type


def repeated_scans(times: int, side: int = 3000) -> bytes:
    """A progressive JPEG whose last scan is repeated; 114 KB for 1,500 times."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "JPEG", progressive=True, quality=1)
    data = buffer.getvalue()
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * times + data[-2:]


def with_exif(jpeg, *tags):
    """With orientation 6 and these tags (number, type, count, four bytes of value or offset)."""
    entries = sorted([(0x0112, SHORT, 1, struct.pack("<HH", 6, 0)), *tags])
    table = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4) + struct.pack("<ii", -1, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]

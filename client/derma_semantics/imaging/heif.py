"""HEIC and HEIF, as phones store photographs. Needs pip install 'derma-semantics[heic]'.

image = to_image(Path("IMG_0001.HEIC").read_bytes())    # a Pillow image, mode RGB

The server has no decoder for it, so the client sends the pixels alone.
"""

from __future__ import annotations

import io

from PIL import Image

from derma_semantics.domain.errors import CorruptImage, UnsupportedFormat
from derma_semantics.imaging.preprocess import check_encoded, check_size, upright_rgb

EXTRA = "HEIC and HEIF files need one more library: pip install 'derma-semantics[heic]'"


def to_image(data: bytes) -> Image.Image:
    """The primary picture of a file, upright, mode RGB, in sRGB, at its own size, without any metadata.

    Raises:
        InvalidImage: one of its subclasses, naming the problem and the limit.
    """
    try:
        from pillow_heif import HeifImageFile
    except ModuleNotFoundError:
        raise UnsupportedFormat(EXTRA) from None
    check_encoded(data)
    try:
        image = HeifImageFile(io.BytesIO(data))
    except Exception as exc:  # libheif raises whatever a damaged file provokes
        raise CorruptImage(f"the HEIF cannot be read: {exc}") from exc
    check_size(image.size)  # before it is decoded
    return upright_rgb(image)

"""Convert photographs with a colour profile to sRGB, in which the network was trained.

    image = to_srgb(image)      # unchanged where no profile is embedded

Phones store Display P3; read as sRGB, its colours look paler than they are.
"""

from __future__ import annotations

import io
from contextlib import suppress
from functools import cache
from typing import Any

from PIL import Image, ImageCms

RGB_SPACE = "RGB "  # ICC.1:2022, table 19


def to_srgb(image: Image.Image) -> Image.Image:
    """The image in sRGB. A profile that is damaged, or not of RGB, is ignored, as browsers do.

    Args:
        image: as Pillow opened it; only mode RGB is converted.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode != "RGB":
        return image
    with suppress(ImageCms.PyCMSError, OSError, ValueError):
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if embedded.profile.xcolor_space == RGB_SPACE:
            converted = ImageCms.profileToProfile(image, embedded, _srgb(), outputMode="RGB")
            return converted or image
    return image


@cache
def _srgb() -> Any:
    return ImageCms.createProfile("sRGB")

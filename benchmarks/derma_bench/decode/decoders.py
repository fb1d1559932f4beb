"""Ways from a JPEG to the model's pixels, to be compared with the reference.

    pixels = DECODERS["simplejpeg + torchvision"](jpeg)      # uint8 (224, 224, 3)
    pixels, more = by_nvimgcodec(device=0).many([jpeg, another])

All turn the image upright by its EXIF orientation, as the reference does, and all aim at the
geometry that the original size gives: they differ in how they decode and resize, in nothing else.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from derma_semantics.domain.contract import IMAGE_SIZE
from derma_semantics.imaging.preprocess import preprocess
from derma_serving.runtime import nvimgcodec

Pixels = NDArray[np.uint8]
Decoder = Callable[[bytes], Pixels]

ORIENTATION = 0x0112
# What brings pixels stored with this orientation upright. 5 to 8 swap width and height.
TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: p.transpose(1, 0, 2)[::-1],
}


@dataclass(frozen=True)
class AtOnce:
    """A decoder that decodes many images in one call."""

    many: Callable[[Sequence[bytes]], list[Pixels]]

    def __call__(self, data: bytes) -> Pixels:
        return self.many([data])[0]


@dataclass(frozen=True)
class Header:
    """Size as stored in the file, and EXIF orientation."""

    width: int
    height: int
    orientation: int

    @classmethod
    def read(cls, data: bytes) -> Header:
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
        return cls(*image.size, image.getexif().get(ORIENTATION, 1))

    @property
    def target(self) -> tuple[int, int]:
        """Width and height to resize to, upright, as ``preprocess.resize_and_crop`` does."""
        width, height = (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)
        short = min(width, height)
        return IMAGE_SIZE * width // short, IMAGE_SIZE * height // short

    def scaled(self, factor: float) -> tuple[int, int]:
        """Stored width and height with ``factor`` times 224 on the shorter side, rounded up."""
        short = min(self.width, self.height)
        wanted = round(factor * IMAGE_SIZE)
        return -(-self.width * wanted // short), -(-self.height * wanted // short)

    def upright(self, pixels: Pixels) -> Pixels:
        turn = TURNS.get(self.orientation)
        return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def pillow_draft(factor: float, data: bytes) -> Pixels:
    """libjpeg's scaled decoding, to the smallest eighth that is large enough."""
    header = Header.read(data)
    image = Image.open(io.BytesIO(data), formats=["JPEG"])
    image.draft("RGB", header.scaled(factor))
    return _pillow_resize(ImageOps.exif_transpose(image).convert("RGB"), header)


def simplejpeg_pillow(data: bytes) -> Pixels:
    header = Header.read(data)
    pixels = header.upright(_simplejpeg(data))
    return _pillow_resize(Image.fromarray(pixels), header)


def simplejpeg_torchvision(data: bytes) -> Pixels:
    header = Header.read(data)
    return _torchvision_resize(header.upright(_simplejpeg(data)), header)


def simplejpeg_scaled(factor: float, data: bytes) -> Pixels:
    """As ``pillow_draft``, by TurboJPEG."""
    header = Header.read(data)
    width, height = header.scaled(factor)
    pixels = _simplejpeg(data, min_width=width, min_height=height)
    return _torchvision_resize(header.upright(pixels), header)


def opencv_area(data: bytes) -> Pixels:
    """OpenCV turns images by itself unless it is told not to; here all are turned in one way."""
    import cv2

    header = Header.read(data)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None:
        raise ValueError("OpenCV cannot read the image")
    pixels = header.upright(np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8))
    resized = cv2.resize(pixels, header.target, interpolation=cv2.INTER_AREA)
    return _crop(np.asarray(resized, np.uint8))


def by_nvimgcodec(device: int | None) -> AtOnce:
    """What ``derma_preprocess`` does with ``decoder: nvimgcodec``, for images that are not left to Pillow.

    Args:
        device: number of the GPU; None for the processor.

    Raises:
        ImportError, RuntimeError: it is not installed; no such GPU, or no driver for it.
    """
    decoder = nvimgcodec.Decoder(device)

    def many(images: Sequence[bytes]) -> list[Pixels]:
        found = [pixels for pixels in decoder.preprocess(images) if pixels is not None]
        if left := len(images) - len(found):
            raise RuntimeError(f"{decoder.where}: {left} of {len(images)} images were left to Pillow")
        return found

    many([nvimgcodec.picture()])
    return AtOnce(many)


REFERENCE = "Pillow (the reference)"
DECODERS: dict[str, Decoder] = {
    REFERENCE: preprocess,
    "Pillow draft >= 1x": partial(pillow_draft, 1),
    "Pillow draft >= 2x": partial(pillow_draft, 2),
    "Pillow draft >= 3x": partial(pillow_draft, 3),
    "simplejpeg + Pillow": simplejpeg_pillow,
    "simplejpeg + torchvision": simplejpeg_torchvision,
    "simplejpeg scaled >= 2x + torchvision": partial(simplejpeg_scaled, 2),
    "OpenCV INTER_AREA": opencv_area,
}


def _simplejpeg(data: bytes, **smallest: int) -> Pixels:
    import simplejpeg  # type: ignore[import-untyped]

    decoded: Any = simplejpeg.decode_jpeg(data, "RGB", **smallest)
    return np.asarray(decoded, np.uint8)


def _pillow_resize(image: Image.Image, header: Header) -> Pixels:
    if image.size != header.target:
        image = image.resize(header.target, Image.Resampling.BICUBIC)
    return _crop(np.asarray(image))


def _torchvision_resize(pixels: Pixels, header: Header) -> Pixels:
    import torch
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    width, height = header.target
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    resized = F.resize(planes, [height, width], InterpolationMode.BICUBIC, antialias=True)
    return _crop(resized.permute(1, 2, 0).numpy())


def _crop(pixels: Pixels) -> Pixels:
    top, left = (round((side - IMAGE_SIZE) / 2) for side in pixels.shape[:2])
    return pixels[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]

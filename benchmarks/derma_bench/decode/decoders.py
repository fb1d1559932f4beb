"""Ways from a JPEG to the model's pixels, to be compared with the reference.

    decoders, skipped = available()
    (pixels,) = decoders["simplejpeg + torchvision"]([jpeg])      # uint8 (224, 224, 3)

All turn the image upright by its EXIF orientation, as the reference does, and all aim at the
geometry that the original size gives: they differ in how they decode and resize, in nothing else.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from derma_bench.hardware import gpus
from derma_semantics.domain.contract import IMAGE_SIZE
from derma_semantics.imaging.preprocess import preprocess
from derma_serving.runtime import nvimgcodec

Pixels = NDArray[np.uint8]
# Some decode many images in one call.
Decoder = Callable[[Sequence[bytes]], list[Pixels]]

ORIENTATION = 0x0112
# What brings pixels stored with this orientation upright. 5 to 8 swap width and height.
TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: p.transpose(1, 0, 2)[::-1],
}
# Scaled decoding leaves at least so many times the model's pixels to the resize.
DRAFT = 2


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

    def scaled(self, factor: int) -> tuple[int, int]:
        """Stored width and height with ``factor`` times 224 on the shorter side, rounded up."""
        short, wanted = min(self.width, self.height), factor * IMAGE_SIZE
        return -(-self.width * wanted // short), -(-self.height * wanted // short)


def each(decoder: Callable[[bytes], Pixels]) -> Decoder:
    """A decoder of one image as one of many."""
    return lambda images: [decoder(image) for image in images]


def pillow_draft(data: bytes) -> Pixels:
    """libjpeg's scaled decoding, to the smallest eighth that is large enough."""
    header = Header.read(data)
    image: Image.Image = Image.open(io.BytesIO(data), formats=["JPEG"])
    image.draft("RGB", header.scaled(DRAFT))
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return _crop(np.asarray(upright.resize(header.target, Image.Resampling.BICUBIC)))


def simplejpeg_torchvision(data: bytes) -> Pixels:
    """TurboJPEG, and the resize of torchvision."""
    header = Header.read(data)
    decoded = np.asarray(simplejpeg.decode_jpeg(data, "RGB"), np.uint8)
    upright = np.ascontiguousarray(TURNS[header.orientation](decoded))
    width, height = header.target
    planes = torch.from_numpy(upright).permute(2, 0, 1)
    resized = F.resize(planes, [height, width], InterpolationMode.BICUBIC, antialias=True)
    return _crop(resized.permute(1, 2, 0).numpy())


def by_nvimgcodec(device: int | None) -> Decoder:
    """Decode as ``derma_preprocess`` does with ``decoder: nvimgcodec``, with nothing left to Pillow.

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
    return many


REFERENCE = "Pillow (the reference)"
DECODERS: dict[str, Decoder] = {
    REFERENCE: each(preprocess),
    f"Pillow draft >= {DRAFT}x": each(pillow_draft),
    "simplejpeg + torchvision": each(simplejpeg_torchvision),
}


def available() -> tuple[dict[str, Decoder], dict[str, str]]:
    """All decoders that can run here, and why nvImageCodec is not among them if it is not."""
    on_gpu = bool(gpus())
    name = f"nvImageCodec ({'GPU' if on_gpu else 'processor'}) + Pillow"
    try:
        return {**DECODERS, name: by_nvimgcodec(0 if on_gpu else None)}, {}
    except (ImportError, RuntimeError) as exc:
        return DECODERS, {f"skipped: {name}": str(exc)}


def _crop(pixels: Pixels) -> Pixels:
    top, left = (round((side - IMAGE_SIZE) / 2) for side in pixels.shape[:2])
    return pixels[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]

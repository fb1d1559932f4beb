"""JPEG decoding by NVIDIA's nvImageCodec, a batch in one call: on a GPU, or on the processor.

    decoder = Decoder(device=0)              # GPU 0; None: the processor
    decoder.preprocess([photo, png])         # [pixels, None]: the PNG is left to ``preprocess``

It takes only whole baseline JPEGs in colour, and gives None for all else and for what it cannot
decode. ``preprocess`` then reads or refuses these, so that no refusal and no other format depends
on the decoder. Turning upright, resizing and cropping stay Pillow's.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derma_semantics.domain.contract import MAX_PIXELS
from derma_semantics.domain.errors import InvalidImage
from derma_semantics.imaging.preprocess import (
    PIXEL_TOLERANCE,
    START_OF_SCAN,
    check_size,
    open_header,
    preprocess,
    preprocess_image,
)

Pixels = NDArray[np.uint8]

INSTALL = "pip install 'derma-semantics[nvimgcodec]'"
CPU_ONLY = -99999  # NVIMGCODEC_DEVICE_CPU_ONLY, which has no name in Python
# Chroma interpolated as Pillow has it; nvJPEG's flag 4: strict with damaged data.
OPTIONS = ":fancy_upsampling=1 nvjpeg_cuda_decoder:extra_flags=4"
# Decoded in one call: bounds the memory that the largest images take on the GPU.
PIXELS_AT_ONCE = 8 * MAX_PIXELS
END_OF_IMAGE = b"\xff\xd9"
# Components that are YCbCr to every decoder; other ids have libjpeg guess.
YCBCR = [1, 2, 3]


class Decoder:
    """One for each thread.

    Args:
        device: number of the GPU; None for the processor, with one thread.

    Raises:
        ImportError: the package is not installed.
        RuntimeError: there is no such GPU, or no driver for it.
    """

    def __init__(self, device: int | None = None) -> None:
        try:
            from nvidia import nvimgcodec
        except ImportError as exc:
            raise ImportError(f"decoding by nvImageCodec needs nvidia-nvimgcodec: {INSTALL}") from exc
        kinds = nvimgcodec.BackendKind
        # On a GPU nothing that decodes on the processor: what the GPU cannot do is Pillow's.
        on_gpu = (kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU)
        self.where = f"nvImageCodec on {'the processor' if device is None else f'GPU {device}'}"
        self._stream = nvimgcodec.CodeStream
        self._decoder = nvimgcodec.Decoder(
            device_id=CPU_ONLY if device is None else device,
            max_num_cpu_threads=1 if device is None else 0,
            backends=[nvimgcodec.Backend(k) for k in ((kinds.CPU_ONLY,) if device is None else on_gpu)],
            options=OPTIONS,
        )
        self._parameters = nvimgcodec.DecodeParams(
            apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB, allow_any_depth=False
        )

    def preprocess(self, images: Sequence[bytes]) -> list[Pixels | None]:
        """What ``preprocess`` gives for each, uint8 (224, 224, 3); None where it is to be asked itself."""
        pixels: list[Pixels | None] = [None] * len(images)
        taken = [(at, header) for at, image in enumerate(images) if (header := _header(image))]
        for part in _parts(taken, PIXELS_AT_ONCE):
            streams = [self._stream(images[at]) for at, _ in part]
            decoded = self._decoder.decode(streams, params=self._parameters)
            for (at, header), one in zip(part, decoded, strict=True):
                pixels[at] = None if one is None else _finished(one, header)
        return pixels

    def check(self) -> None:
        """Decode ``picture`` and compare.

        Raises:
            RuntimeError: it is not decoded, or a pixel is further from Pillow's than ``PIXEL_TOLERANCE``.
        """
        image = picture()
        (found,) = self.preprocess([image])
        if found is None:
            raise RuntimeError(f"{self.where} decodes no JPEG: is nvJPEG there? {INSTALL}")
        away = int(np.abs(preprocess(image).astype(np.int16) - found).max())
        if away > PIXEL_TOLERANCE:
            raise RuntimeError(
                f"{self.where} is {away} of 255 away from Pillow; the limit is {PIXEL_TOLERANCE}"
            )


def picture() -> bytes:
    """A JPEG of coloured clouds, as a camera would store it."""
    colours = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def _header(data: bytes) -> Image.Image | None:
    """The opened file, if it is one to take."""
    try:
        image = open_header(data)
        check_size(image.size)
    except InvalidImage:
        return None
    taken = (
        (image.format, image.mode) == ("JPEG", "RGB")
        and "progressive" not in image.info
        and data.count(START_OF_SCAN) == 1  # of several, Pillow refuses what this decoder takes
        and image.info.get("adobe_transform") != 0
        and [layer[0] for layer in image.layer] == YCBCR  # type: ignore[attr-defined]
        and data.endswith(END_OF_IMAGE)  # cut short, it is Pillow's to refuse
    )
    return image if taken else None


def _parts(taken: Iterable[tuple[int, Image.Image]], limit: int) -> Iterator[list[tuple[int, Image.Image]]]:
    """Cut where a part would have more pixels than ``limit``."""
    part: list[tuple[int, Image.Image]] = []
    pixels = 0
    for at, header in taken:
        size = header.width * header.height
        if part and pixels + size > limit:
            yield part
            part, pixels = [], 0
        part.append((at, header))
        pixels += size
    if part:
        yield part


def _finished(decoded: Any, header: Image.Image) -> Pixels | None:
    image = Image.fromarray(np.asarray(decoded.cpu()))
    if image.size != header.size:
        return None
    image.info = header.info  # with the EXIF orientation
    try:
        return preprocess_image(image)
    except InvalidImage:
        return None

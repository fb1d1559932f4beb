"""Encoded image to model pixels: the one way from bytes to numbers.

    from derma_semantics.imaging.preprocess import preprocess
    pixels = preprocess(Path("lesion.jpg").read_bytes())    # uint8 (224, 224, 3)

The Triton model, training, evaluation and the saliency sidecar all import this
function. It equals open_clip's evaluation transform before normalisation
(``open_clip.transform.image_transform(is_train=False)``: Pillow bicubic on the
shorter side, then centre crop), applied to the upright RGB image.
"""

from __future__ import annotations

import io
import re
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from derma_semantics.domain.contract import (
    IMAGE_SIZE,
    MAX_ASPECT,
    MAX_ENCODED_BYTES,
    MAX_PIXELS,
    MAX_SCANNED_PIXELS,
    MAX_SCANS,
    MIN_SIDE,
)
from derma_semantics.domain.errors import (
    CorruptImage,
    EmptyImage,
    ImageTooComplex,
    ImageTooLarge,
    ImageTooNarrow,
    ImageTooSmall,
    InvalidImage,
    UnsupportedFormat,
)
from derma_semantics.domain.formats import FORMATS, JPEG, PNG, SERVICE_FORMATS
from derma_semantics.imaging.colour import to_srgb
from derma_semantics.imaging.png import without_ancillary_chunks

# What another decoder of the same image may change, of 255.
PIXEL_TOLERANCE = 2
# EXIF 2.32, tag 0x0112.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
START_OF_SCAN = b"\xff\xda"  # ITU-T T.81, table B.1


def preprocess(data: bytes) -> NDArray[np.uint8]:
    """Decode, turn upright, resize and crop one encoded image.

    Args:
        data: a JPEG, PNG, WebP, TIFF or BMP file of any mode.

    Returns:
        RGB pixels, uint8, shape (224, 224, 3).

    Raises:
        InvalidImage: one of its subclasses, naming the problem and the limit.
    """
    return resize_and_crop(decode(data))


def preprocess_image(image: Image.Image) -> NDArray[np.uint8]:
    """The same for an image that Pillow has opened: the pixels its file would give.

    Raises:
        InvalidImage: one of its subclasses, naming the problem and the limit.
    """
    return resize_and_crop(upright_rgb(image))


def check_encoded(data: bytes) -> None:
    """Refuse what need not be decoded, or sent, to be refused.

    Raises:
        EmptyImage, ImageTooLarge: no bytes, or more than 20 MiB.
    """
    if not data:
        raise EmptyImage("the image is empty (0 bytes)")
    if len(data) > MAX_ENCODED_BYTES:
        raise ImageTooLarge(
            f"the file has {len(data) / 2**20:.1f} MiB; the limit is {MAX_ENCODED_BYTES >> 20} MiB"
        )


def decode(data: bytes) -> Image.Image:
    """The image, upright (EXIF orientation applied), in mode RGB, at its own size.

    Raises:
        InvalidImage: one of its subclasses, naming the problem and the limit.
    """
    image = open_header(data)
    check_size(image.size)
    if JPEG.begins(data):  # also one that Pillow calls MPO
        check_scans(data, image.size)
    return upright_rgb(image)


def resize_and_crop(image: Image.Image) -> NDArray[np.uint8]:
    """Bicubic to 224 on the shorter side, then the central 224 x 224.

    Args:
        image: mode RGB.

    Returns:
        uint8, shape (224, 224, 3).
    """
    size = _resized(image.size)
    left, top = _corner(size)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + IMAGE_SIZE, top + IMAGE_SIZE)))


def crop_box(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The rectangle of an upright photograph that becomes the 224 x 224 pixels.

    Args:
        size: the photograph's width and height.

    Returns:
        left, top, right, bottom, in the photograph's pixels; fractions of a pixel occur.
    """
    resized = _resized(size)
    left, top = _corner(resized)
    across, down = size[0] / resized[0], size[1] / resized[1]
    return left * across, top * down, (left + IMAGE_SIZE) * across, (top + IMAGE_SIZE) * down


def _resized(size: tuple[int, int]) -> tuple[int, int]:
    """224 on the shorter side; torchvision truncates the longer one, and so do we."""
    short = min(size)
    return IMAGE_SIZE * size[0] // short, IMAGE_SIZE * size[1] // short


def _corner(resized: tuple[int, int]) -> tuple[int, int]:
    """Left and top of the central 224 x 224; torchvision rounds them, and so do we."""
    return round((resized[0] - IMAGE_SIZE) / 2), round((resized[1] - IMAGE_SIZE) / 2)


def open_header(data: bytes) -> Image.Image:
    """The image with its pixels not yet decoded, and its size not yet checked.

    Raises:
        InvalidImage: one of its subclasses, naming the problem and the limit.
    """
    check_encoded(data)
    if PNG.begins(data):
        data = without_ancillary_chunks(data)
    try:
        return Image.open(io.BytesIO(data), formats=SERVICE_FORMATS)
    except UnidentifiedImageError as exc:
        raise _unidentified(data) from exc
    except Image.DecompressionBombError as exc:
        # Pillow refuses before it says the size in numbers: "Image size (900000000 pixels) exceeds ..."
        pixels = int(re.findall(r"\d+", str(exc))[0])
        raise ImageTooLarge(_too_many(pixels)) from exc
    except Exception as exc:  # a damaged header fails in as many ways as there are formats
        raise CorruptImage(f"the image header is damaged: {exc}") from exc


def upright_rgb(image: Image.Image) -> Image.Image:
    """What Pillow has opened, as ``decode`` gives it.

    Raises:
        InvalidImage: one of its subclasses, naming the problem and the limit.
    """
    check_size(image.size)
    _check_pages(image)
    try:
        image.load()
        rgb = _to_rgb(_upright(image))
    except InvalidImage:
        raise
    except Exception as exc:  # Pillow's decoders raise whatever a damaged file provokes
        raise CorruptImage(f"the {image.format or 'image'} is truncated or damaged: {exc}") from exc
    rgb.info.clear()  # its orientation is used up: whoever reads it again would turn it twice
    return rgb


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says. Nothing else of it is read: one damaged tag is no damaged photograph."""
    orientation = 1
    with suppress(Exception):
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    turn = TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _unidentified(data: bytes) -> InvalidImage:
    """The reason that the format's own decoder gives, where the first bytes name a format."""
    for kind in FORMATS:
        if kind.service and kind.begins(data):
            try:
                Image.OPEN[kind.name][0](io.BytesIO(data), "")
            except Exception as exc:
                return CorruptImage(f"the {kind.name} cannot be read: {exc}")
    supported = ", ".join(SERVICE_FORMATS)
    return UnsupportedFormat(f"the data is not an image in a supported format ({supported})")


def check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(_too_many(width * height))
    if min(size) < MIN_SIDE:
        raise ImageTooSmall(f"the image is {width} x {height}; each side needs at least {MIN_SIDE} pixels")
    # Resizing the shorter side to 224 would make a small strip into gigabytes.
    if max(size) > MAX_ASPECT * min(size):
        raise ImageTooNarrow(
            f"the image is {width} x {height}; one side may be at most {MAX_ASPECT} times the other"
        )


def _check_pages(image: Image.Image) -> None:
    """Refuse a TIFF of several pages and a WebP that moves: which of them is meant is not said."""
    if image.format not in ("TIFF", "WEBP"):
        return
    try:
        image.seek(1)
    except Exception:  # there is no second one, or none that can be read
        image.seek(0)
        return
    raise UnsupportedFormat(
        f"the {image.format} file has several pages; the limit is 1: "
        "save the page to classify as a file of its own"
    )


def check_scans(data: bytes, size: tuple[int, int]) -> None:
    """Refuse a JPEG that repeats its scans: the time to decode one grows with scans times pixels."""
    scans = data.count(START_OF_SCAN)
    limit = min(MAX_SCANS, MAX_SCANNED_PIXELS // (size[0] * size[1]))
    if scans > limit:
        raise ImageTooComplex(
            f"the JPEG has {scans} scans; the limit for {size[0]} x {size[1]} pixels is {limit}: "
            "save it as a baseline JPEG"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Mode RGB as Pillow converts it, in sRGB; 16-bit grey keeps its high byte instead of clipping.

    What is transparent is shown on white, so that colours nobody sees do not change the answer.
    """
    if image.has_transparency_data and image.mode != "I;16":
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
        image.info.update(seen.info)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        image = Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    try:
        # Floating-point pixels have no defined white, so there is nothing to scale them by.
        if image.mode != "F":
            return to_srgb(image).convert("RGB")
    except ValueError:
        pass
    raise UnsupportedFormat(f"pixels of mode {image.mode} cannot be read as RGB")


def _too_many(pixels: int) -> str:
    return f"the image has {pixels / 1e6:.1f} megapixels; the limit is {MAX_PIXELS / 1e6:.0f}"

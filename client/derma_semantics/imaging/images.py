"""What a caller has of an image, as the bytes to send.

encoded("lesion.jpg")           # the file as it is
encoded(pixels)                 # uint8 (H, W, 3): preprocessed, as a small PNG
encoded("lesion.dcm")           # DICOM and HEIC: the pixels alone, in the same way
opened(data)                    # a Pillow image, upright and RGB, of any format that the client reads
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derma_semantics.domain.formats import DICOM, HEIF
from derma_semantics.domain.regular import read_regular
from derma_semantics.imaging import heif
from derma_semantics.imaging.dicom import is_dicom, to_image
from derma_semantics.imaging.dicom.files import MAX_FILE_BYTES
from derma_semantics.imaging.preprocess import check_encoded, decode, preprocess_image

ImageLike: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]


def encoded(image: ImageLike) -> bytes:
    """The bytes to send: files as they are; pixels, and those of DICOM and HEIC files, preprocessed, as PNG.

    Preprocessing leaves such a PNG unchanged, so pixels get the answer their file would get. Of a
    DICOM or HEIC file nothing but the pixels is sent.

    Raises:
        InvalidImage: nothing that the service would accept.
        OSError: a path cannot be read, or is no regular file.
        TypeError, ValueError: not an image, or an array of another type or shape.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
    elif isinstance(image, (str, os.PathLike)):
        data = read_regular(image, MAX_FILE_BYTES + 1)  # more is refused below
    elif isinstance(image, Image.Image):
        data = _png(image)
    elif isinstance(image, np.ndarray):
        data = _png(_from_array(image))
    else:
        raise TypeError(f"expected a path, bytes, Pillow image or array, got {type(image).__name__}")
    # A file that calls itself DICOM and is not is refused here: it may name the patient all the same.
    if is_dicom(data) or _called_dicom(image):
        data = _png(to_image(data))
    elif HEIF.begins(data):
        data = _png(heif.to_image(data))
    check_encoded(data)
    return data


def opened(data: bytes) -> Image.Image:
    """The picture of a file, upright, mode RGB, at its own size.

    Raises:
        InvalidImage: one of its subclasses, naming the problem and the limit.
    """
    if is_dicom(data):
        return to_image(data)
    return heif.to_image(data) if HEIF.begins(data) else decode(data)


def _called_dicom(image: ImageLike) -> bool:
    return isinstance(image, (str, os.PathLike)) and Path(image).suffix.lower() in DICOM.suffixes


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise ValueError(
            f"expected a uint8 array of shape (H, W, 3) or (H, W), got {array.dtype} {array.shape}"
        )
    return Image.fromarray(array)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(preprocess_image(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()

"""Valid files of every format, mode and compression that mutations start from.

originals()["jpeg progressive"]     # its bytes
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmwrite, uid
from pydicom.encaps import encapsulate

from derma_semantics.imaging.synthetic import draw

SIZE = (96, 72)


@cache
def originals() -> dict[str, bytes]:
    """Small, so that thousands are decoded in seconds."""
    return {**_jpeg(), **_png(), **_webp(), **_tiff(), **_bmp(), **_dicom()}


def _picture(mode: str = "RGB") -> Image.Image:
    rgb = draw(5, SIZE).image
    if mode == "I;16":
        return Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) << 8)
    if mode == "LA":
        return rgb.convert("L").convert("LA")
    return rgb.convert(mode)


def _saved(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    _picture(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x0132] = orientation, "a photograph", "2026:01:01 00:00:00"
    return exif


def _more() -> list[Image.Image]:
    return [draw(seed, SIZE).image for seed in (6, 7)]


def _jpeg() -> dict[str, bytes]:
    return {
        "jpeg": _saved("JPEG", quality=90),
        "jpeg progressive": _saved("JPEG", progressive=True),
        "jpeg grey": _saved("JPEG", "L"),
        "jpeg cmyk": _saved("JPEG", "CMYK"),
        "jpeg exif": _saved("JPEG", exif=_exif(6), subsampling=0, icc_profile=b"not a profile" * 20),
        "jpeg restarts": _saved("JPEG", restart_marker_blocks=4, comment=b"a comment"),
    }


def _png() -> dict[str, bytes]:
    return {
        **{f"png {mode}": _saved("PNG", mode) for mode in ("RGB", "RGBA", "L", "1", "LA", "I;16")},
        "png palette": _saved("PNG", "P", transparency=3),
        "png exif": _saved("PNG", exif=_exif(8)),
        "png animated": _saved("PNG", save_all=True, append_images=_more()),
    }


def _webp() -> dict[str, bytes]:
    return {
        "webp": _saved("WEBP"),
        "webp lossless": _saved("WEBP", "RGBA", lossless=True),
        "webp exif": _saved("WEBP", exif=_exif(3)),
        "webp animated": _saved("WEBP", save_all=True, append_images=_more()),
    }


def _tiff() -> dict[str, bytes]:
    compressions = ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
    return {
        "tiff": _saved("TIFF"),
        **{f"tiff {name}": _saved("TIFF", compression=name) for name in compressions},
        "tiff fax": _saved("TIFF", "1", compression="group4"),
        **{f"tiff {mode}": _saved("TIFF", mode) for mode in ("CMYK", "I;16", "F", "P", "LAB")},
        "tiff strips": _saved("TIFF", compression="tiff_lzw", strip_size=2000),
        "tiff pages": _saved("TIFF", save_all=True, append_images=_more(), exif=_exif(5)),
        "tiff big": _saved("TIFF", big_tiff=True),
    }


def _bmp() -> dict[str, bytes]:
    return {f"bmp {mode}": _saved("BMP", mode) for mode in ("RGB", "RGBA", "L", "1", "P")}


def _dicom() -> dict[str, bytes]:
    pixels = np.asarray(_picture())
    return {
        "dicom": _dataset(pixels, uid.ExplicitVRLittleEndian),
        "dicom implicit": _dataset(pixels, uid.ImplicitVRLittleEndian),
        "dicom grey 16": _dataset(np.asarray(_picture("I;16")), uid.ExplicitVRLittleEndian),
        "dicom jpeg": _dataset(pixels, uid.JPEGBaseline8Bit, encapsulate([_saved("JPEG", quality=90)])),
    }


def _dataset(pixels: np.ndarray, syntax: uid.UID, data: bytes | None = None) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.DermoscopicPhotographyImageStorage, "1.2.3.4"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    grey_or = "YBR_FULL_422" if data else "RGB"
    dataset.PhotometricInterpretation = grey_or if pixels.ndim == 3 else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = data or pixels.tobytes()
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()

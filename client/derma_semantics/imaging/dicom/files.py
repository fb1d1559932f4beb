"""Open a DICOM file: what it may be, and one boundary for everything that pydicom raises."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any

from derma_semantics.domain.contract import MAX_PIXELS
from derma_semantics.domain.errors import (
    CorruptImage,
    DermaError,
    EmptyImage,
    ImageTooLarge,
    UnsupportedFormat,
)
from derma_semantics.domain.formats import DICOM

EXTRA = "DICOM files need more libraries: pip install 'derma-semantics[dicom]'"

# The largest accepted picture, uncompressed: three bytes a pixel, and a header.
MAX_FILE_BYTES = 3 * MAX_PIXELS + 2**20
MAX_HEADER_BYTES = 4 * 2**20

DERMOSCOPIC_PHOTOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.7"
SOP_CLASSES = {
    DERMOSCOPIC_PHOTOGRAPHY: "Dermoscopic Photography Image Storage",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "VL Photographic Image Storage",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image Storage",
}

JPEG = "1.2.840.10008.1.2.4.50"
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
RLE = "1.2.840.10008.1.2.5"
# Implicit, explicit little and (retired) explicit big endian. Not deflated: unpacking it has no limit.
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
SYNTAXES = (*UNCOMPRESSED, JPEG, *JPEG_2000, RLE)

PIXEL_DATA = 0x7FE00010

_TURN = Lock()


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a DICOM file, or a bare data set whose file header is missing.

    No other image format begins like either, except a TIFF file that is DICOM as well.
    """
    # A bare data set begins with group 0002 or 0008, in either byte order.
    return DICOM.begins(data) or data[:2] in (b"\x02\x00", b"\x00\x02", b"\x08\x00", b"\x00\x08")


@contextmanager
def boundary(what: str) -> Iterator[None]:
    """Turn whatever ``what`` provokes in pydicom and highdicom into this package's errors.

    Their messages quote the values of attributes, which may name the patient: so they are
    neither repeated nor chained.
    """
    try:
        yield
    except DermaError:
        raise
    except ModuleNotFoundError:
        raise UnsupportedFormat(EXTRA) from None
    except Exception as exc:
        raise CorruptImage(f"{what} ({type(exc).__name__})") from None


@contextmanager
def silence() -> Iterator[None]:
    """No warning and no log record of pydicom or highdicom: they quote attributes of the patient.

    For where those attributes are read. Levels and warning filters belong to the process, so
    threads take turns.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    with _TURN, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def read(data: bytes, attributes: list[str] | None = None) -> Any:
    """The data set of a supported DICOM image.

    Args:
        data: the file.
        attributes: the only ones to parse; without, all but the pixels.

    Raises:
        InvalidImage: one of its subclasses, naming the problem and the limit.
    """
    _check_bytes(data)
    with boundary("the DICOM file is truncated or damaged"):
        from pydicom.filereader import read_partial
        from pydicom.tag import Tag

        _check_syntax(data)
        _check_header(data)
        dataset = read_partial(
            io.BytesIO(data),
            stop_when=_end(with_pixels=attributes is not None),
            specific_tags=attributes and [Tag(name) for name in attributes],
        )
        _check_class(str(dataset.get("SOPClassUID", "")))
    return dataset


def _end(with_pixels: bool) -> Callable[[int, str | None, int], bool]:
    """Where reading stops: before the pixels, or right after them whatever follows."""
    passed = False

    def stop(tag: int, vr: str | None, length: int) -> bool:
        nonlocal passed
        end = passed or (tag >= PIXEL_DATA and not with_pixels)
        passed = passed or tag >= PIXEL_DATA
        return end

    return stop


def named(uid: str) -> str:
    """A SOP class or transfer syntax in words; nothing that is not a UID is repeated."""
    from pydicom.uid import UID

    if not re.fullmatch(r"[0-9.]{1,64}", uid):
        return "unknown" if uid else "missing"
    name = UID(uid).name
    return uid if name == uid else f"{name} ({uid})"


def _check_bytes(data: bytes) -> None:
    if not data:
        raise EmptyImage("the image is empty (0 bytes)")
    if len(data) > MAX_FILE_BYTES:
        raise ImageTooLarge(
            f"the DICOM file has {len(data) / 2**20:.1f} MiB; the limit is {MAX_FILE_BYTES >> 20} MiB"
        )
    if not DICOM.begins(data):
        raise UnsupportedFormat("the data set has no DICOM file header (128 bytes, then 'DICM')")


def _check_syntax(data: bytes) -> None:
    """Before the data set itself is read: a deflated one would be unpacked, to whatever size."""
    from pydicom.filereader import read_dataset

    file = io.BytesIO(data)
    file.seek(132)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if syntax not in SYNTAXES:
        raise UnsupportedFormat(
            f"the DICOM transfer syntax is {named(syntax)}; "
            "supported are uncompressed, JPEG Baseline, JPEG 2000 and RLE Lossless"
        )


def _check_header(data: bytes) -> None:
    """Attributes are parsed one by one: many of them would take minutes."""
    from pydicom import dcmread

    if len(data) <= MAX_HEADER_BYTES:
        return
    file, found = io.BytesIO(data[:MAX_HEADER_BYTES]), False
    with suppress(Exception):  # an attribute that is cut off fails in many ways
        dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        found = file.tell() < MAX_HEADER_BYTES
    if not found:
        raise ImageTooLarge(
            f"the DICOM file has no pixels in its first {MAX_HEADER_BYTES >> 20} MiB, "
            "which is the limit for everything else"
        )


def _check_class(sop_class: str) -> None:
    if sop_class not in SOP_CLASSES:
        supported = ", ".join(SOP_CLASSES.values())
        raise UnsupportedFormat(f"the DICOM SOP class is {named(sop_class)}; supported are {supported}")

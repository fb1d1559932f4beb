"""The image formats, and who reads them.

    SERVICE_SUFFIXES            # ('.jpg', '.jpeg', '.png', ...): what the server decodes
    CLIENT_SUFFIXES             # these and DICOM's, of which the client sends the pixels alone

Everything that depends on a format's name or suffix derives from the tuple ``FORMATS``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Format:
    """One file format.

    Attributes:
        name: Pillow's, where the server reads it.
        suffixes: of its files, in lower case.
        signatures: first bytes of a file, where they alone tell the format.
        service: the server reads it. Otherwise the client does, and sends a PNG of its pixels.
    """

    name: str
    suffixes: tuple[str, ...]
    signatures: tuple[bytes, ...] = ()
    service: bool = True


JPEG = Format(name="JPEG", suffixes=(".jpg", ".jpeg"), signatures=(b"\xff\xd8\xff",))
PNG = Format(name="PNG", suffixes=(".png",), signatures=(b"\x89PNG\r\n\x1a\n",))
DICOM = Format(name="DICOM", suffixes=(".dcm",), service=False)
FORMATS: tuple[Format, ...] = (
    JPEG,
    PNG,
    Format(name="WEBP", suffixes=(".webp",)),
    Format(name="TIFF", suffixes=(".tif", ".tiff"), signatures=(b"II*\0", b"MM\0*")),
    Format(name="BMP", suffixes=(".bmp",), signatures=(b"BM",)),
    DICOM,
)

SERVICE_FORMATS: tuple[str, ...] = tuple(kind.name for kind in FORMATS if kind.service)
SERVICE_SUFFIXES: tuple[str, ...] = tuple(s for kind in FORMATS if kind.service for s in kind.suffixes)
CLIENT_SUFFIXES: tuple[str, ...] = tuple(suffix for kind in FORMATS for suffix in kind.suffixes)
